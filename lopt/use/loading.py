"""From a checkpoint's name to an optax transformation.

`lopt` reads weights files and no registry: for any other reference `load` asks the resolvers that installed
packages register under the entry-point group `lopt.theta_resolvers`. Each takes a reference and returns the
architecture's configuration and the flat arrays of theta. keirin's `storage` package registers one that knows
aliases, `models:/` URIs and paths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.architectures import ARCHITECTURES
from lopt.registry import lookup
from lopt.types import LearnedOptimizer, Theta
from lopt.use.binding import bind, check_num_steps
from lopt.use.guard_rails import accumulate_above, l2_weight_decay, skip_non_finite
from lopt.use.layerwise import LayerwiseOptimizer, Stacked
from lopt.use.shipped import PREFIX, is_weights_file, read_arrays, shipped_names

RESOLVERS_GROUP = "lopt.theta_resolvers"
INITIAL = "initial:"
"""Before an architecture's name: its default sizes, with the theta that meta-training with seed 0 starts from."""
THETA_STREAM = 2
"""Stream of the initialisation's randomness; 0 and 1 are the learner's (`curriculum.meta_train`)."""
MAX_TRAINING_STEPS = 150_000
"""VeLO was trained on runs of up to 200 000 updates and gets unreliable near them (Metz et al. 2022, 4.4.2, I)."""

Resolver = Callable[[str], tuple[Mapping[str, Any], Mapping[str, np.ndarray]]]
"""Reference → (architecture configuration, arrays by `jax.tree_util.keystr` path)."""


def load(
    reference: str,
    *,
    num_steps: int | None = None,
    weight_decay: float = 0.0,
    max_training_steps: int = MAX_TRAINING_STEPS,
    stacked: Stacked = False,
    resolver: Resolver | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Returns a trained learned optimizer as an optax transformation.

    The number of steps is the only thing it needs to know about a run. Its `update` reads the loss:

        opt = lopt.load("champion", num_steps=2_000)
        state = opt.init(params)
        updates, state = opt.update(grads, state, params, value=loss)

    The weights are part of the state: donate it to a compiled step (see `lopt.use.binding`). Guard rails are in
    place (see `lopt.use.guard_rails`). To go on after the last step, see `lopt.continue_run`.

    Args:
      reference: An alias ("champion"), a `models:/name@alias` or `models:/name/version` URI, the path of a
        checkpoint, "shipped:NAME" for weights that come with the package, the path of a weights file (.npz), or
        "initial:ARCHITECTURE" for one before any meta-training: "initial:pacer" is a rule that works as it is.
      num_steps: How many updates the run will make. At least 1. Required.
      weight_decay: Amount of an L2 term; 1e-6 has steadied large models.
      max_training_steps: In longer runs, several gradients make one update, so that the optimizer makes no more
        than this many.
      stacked: Which subtrees of the parameters hold layers along their leading axis, to be optimized
        independently; see `lopt.use.layerwise`.
      resolver: Looks the reference up; None: the installed ones.

    Raises:
      TypeError: If `num_steps` is missing.
      ValueError: If `num_steps` or `max_training_steps` is not a positive whole number, `weight_decay` is negative
        or not finite, or the arrays do not fit the architecture.
      LookupError, OSError: What the resolver raises for an unknown reference or a damaged checkpoint.
    """
    if num_steps is None:
        raise TypeError(
            "`num_steps` is missing: a learned optimizer plans its steps for the whole run, so it must know how "
            f"many updates the run will make, for example `lopt.load({reference!r}, num_steps=10_000)`"
        )
    check_num_steps(num_steps)
    learned, theta = load_theta(reference, resolver=resolver)
    if stacked is not False:
        learned = LayerwiseOptimizer(learned, stacked=stacked)
    accumulated = accumulate_above(
        lambda steps: bind(learned, theta, num_steps=steps),
        num_steps=num_steps,
        max_training_steps=max_training_steps,
    )
    return skip_non_finite(l2_weight_decay(accumulated, weight_decay), stacked=stacked)


def load_theta(reference: str, *, resolver: Resolver | None = None) -> tuple[LearnedOptimizer, Theta]:
    """Returns the learned optimizer and the theta that `reference` names; see `load`.

    Raises:
      LookupError: If nothing is called that; says what is.
      ValueError: If the weights do not fit their architecture.
    """
    if reference.startswith(INITIAL):
        name = reference.removeprefix(INITIAL)
        config = lookup(ARCHITECTURES, name, kind="architecture").model_validate({"architecture": name})
        untrained: LearnedOptimizer = config.build()
        return untrained, initial_theta(untrained, seed=0)
    if resolver is None:
        resolver = read_arrays if is_weights_file(reference) else _installed_resolver()
    try:
        architecture, arrays = resolver(reference)
    except LookupError as error:
        if reference not in shipped_names():
            raise
        hint = f"Weights of that name come with the package: {PREFIX + reference!r}."
        raise type(error)(f"{error} {hint}") from None
    config_type = lookup(ARCHITECTURES, str(architecture.get("architecture")), kind="architecture")
    learned = config_type.model_validate(dict(architecture)).build()
    return learned, theta_from_arrays(learned, arrays)


def initial_theta(learned: LearnedOptimizer, *, seed: int) -> Theta:
    """Returns the theta that meta-training with `seed` starts from."""
    return learned.init_theta(jax.random.fold_in(jax.random.key(seed), THETA_STREAM))


def theta_from_arrays(learned: LearnedOptimizer, arrays: Mapping[str, np.ndarray]) -> Theta:
    """Returns theta in the architecture's structure.

    Raises:
      ValueError: If an array is missing, surplus or mis-shaped; names each.
    """
    template = jax.eval_shape(learned.init_theta, jax.random.key(0))
    leaves, treedef = jax.tree_util.tree_flatten_with_path(template)
    wanted = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    problems = [f"missing {name}" for name in wanted if name not in arrays]
    problems += [f"surplus {name}" for name in arrays if name not in wanted]
    problems += [
        f"{name} has shape {arrays[name].shape}, wanted {leaf.shape}"
        for name, leaf in wanted.items()
        if name in arrays and arrays[name].shape != leaf.shape
    ]
    if problems:
        raise ValueError(
            f"theta does not fit the architecture: {'; '.join(problems)}. "
            "Load it with the configuration that it was trained with."
        )
    return jax.tree.unflatten(treedef, [jnp.asarray(arrays[n], leaf.dtype) for n, leaf in wanted.items()])


def _installed_resolver() -> Resolver:
    found = entry_points(group=RESOLVERS_GROUP)
    if not found:
        raise LookupError(
            "no checkpoint resolver is installed, so names cannot be looked up; install keirin with its storage "
            "package, or pass `resolver=`"
        )
    return next(iter(found)).load()
