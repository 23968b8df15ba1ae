"""From a checkpoint's name to an optax transformation.

`lopt` does no I/O. `load` asks the resolvers that installed packages register under the entry-point group
`lopt.theta_resolvers`: each takes a reference and returns the architecture's configuration and the flat arrays
of theta. keirin's `storage` package registers one that knows aliases, `models:/` URIs and paths.
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
from lopt.guard_rails import skip_non_finite
from lopt.registry import lookup
from lopt.types import LearnedOptimizer, Theta

RESOLVERS_GROUP = "lopt.theta_resolvers"

Resolver = Callable[[str], tuple[Mapping[str, Any], Mapping[str, np.ndarray]]]
"""Reference → (architecture configuration, arrays by `jax.tree_util.keystr` path)."""


def load(
    reference: str, *, num_steps: int, resolver: Resolver | None = None
) -> optax.GradientTransformationExtraArgs:
    """Returns a trained learned optimizer as an optax transformation.

    The number of steps is the only thing it needs to know about a run. Its `update` reads the loss:

        opt = lopt.load("champion", num_steps=2_000)
        state = opt.init(params)
        updates, state = opt.update(grads, state, params, value=loss)

    A tensor whose gradient is not finite stands still for that step (see `lopt.guard_rails`).

    Args:
      reference: An alias ("champion"), a `models:/name@alias` or `models:/name/version` URI, or the path of a
        checkpoint.
      num_steps: How many updates the run will make. At least 1.
      resolver: Looks the reference up; None: the installed ones.

    Raises:
      ValueError: If `num_steps` is not a positive whole number, or the arrays do not fit the architecture.
      LookupError, OSError: What the resolver raises for an unknown reference or a damaged checkpoint.
    """
    learned, theta = load_theta(reference, resolver=resolver)
    check_num_steps(num_steps)
    return skip_non_finite(learned.transform(theta, num_steps=num_steps))


def load_theta(reference: str, *, resolver: Resolver | None = None) -> tuple[LearnedOptimizer, Theta]:
    """Returns the learned optimizer and the theta that `reference` names; see `load`."""
    architecture, arrays = (resolver or _installed_resolver())(reference)
    config_type = lookup(ARCHITECTURES, str(architecture.get("architecture")), kind="architecture")
    learned = config_type.model_validate(dict(architecture)).build()
    return learned, theta_from_arrays(learned, arrays)


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
        raise ValueError(f"theta does not fit the architecture: {'; '.join(problems)}")
    return jax.tree.unflatten(treedef, [jnp.asarray(arrays[n], leaf.dtype) for n, leaf in wanted.items()])


def check_num_steps(num_steps: int) -> None:
    """Raises ValueError unless `num_steps` is a positive whole number."""
    if isinstance(num_steps, bool) or not isinstance(num_steps, int | np.integer) or num_steps < 1:
        raise ValueError(
            f"`num_steps` must be the number of updates of the run, a whole number of at least 1, got {num_steps!r}"
        )


def _installed_resolver() -> Resolver:
    found = entry_points(group=RESOLVERS_GROUP)
    if not found:
        raise LookupError(
            "no checkpoint resolver is installed, so names cannot be looked up; install keirin with its storage "
            "package, or pass `resolver=`"
        )
    return next(iter(found)).load()
