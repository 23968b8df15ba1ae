"""`celo2`: one tiny network, shared by all parameters, between a normaliser of its inputs and one of its output.

Eight hidden units, twice, see 30 features of a parameter, each divided by its root mean square over the matrix
that the parameter belongs to; vectors have the 15 that need no rows and columns. The answer is a direction, again
divided by its root mean square, so that the learning rate is the size of a step, whatever the network says:

    Δp = − learning rate · schedule · (direction / RMS + weight decay · p)

Tensors of more than two dimensions are stacks of matrices, [..., n, m]. Two variants share theta's layout:

- `normalized` (Celo2-base): as above, for every tensor.
- `orthogonalized` (Celo2): the direction of a matrix goes through five Newton–Schulz iterations before it is
  divided by its RMS. Vectors and the model's input and output tensors are trained by AdamW instead.

Which tensors AdamW trains is for `adam_below_rank` and `adam_paths` to say, or for `Celo2(config, adam_leaves=…)`,
which names them one by one.

[1] Celo2, arXiv:2602.19142 (2026).
[2] amoudgl/celo (MIT): the released transformation. `released()` reproduces it: the direction alone, for the user
    to multiply by −learning rate; the network for every tensor; two more outputs, which nothing reads.
Deviations, undone by `released()`: [2] takes steps of RMS 1 even where the gradient is exactly zero, since the
network also sees the parameter and has biases. By default a parameter whose gradient has always been zero stays,
and does not count in the RMS of the others. The learning rate's schedule and AdamW's bias correction are ours.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field, field_validator, model_validator

from lopt import nn
from lopt.contract import ArchitectureConfig, horizon, require_params
from lopt.features import published as pf
from lopt.features import stacks as st
from lopt.features.rounding import store
from lopt.registry import lookup
from lopt.rules.celo2 import (
    FEATURES,
    VECTOR_FEATURES,
    AdamMoments,
    adam_step,
    network_direction,
    warmup_cosine,
)
from lopt.rules.per_parameter_network import DenseLayer
from lopt.types import PRNGKey, Scalar, Theta
from lopt.use.layerwise import Stacked, mark_leaves

MAX_GRADIENT = 1000.0
ADAM_PATHS = r"(?i)embed|(^|/)(lm_)?(head|logits|classifier|readout)(_?\d+)?(/|$)"
"""Usual names of input and output tensors, whole path components but for 'embed'."""

Decay = Annotated[float, Field(gt=0, lt=1)]


class Celo2State(NamedTuple):
    """The state of one run."""

    progress: jax.Array  # scalar int32: updates so far, out of num_steps
    accumulators: tuple[
        pf.Accumulators, ...
    ]  # one per shape that the network trains, see lopt.features.stacks
    adam: tuple[AdamMoments, ...]  # one per shape that AdamW trains


class Celo2Config(ArchitectureConfig):
    """Sizes and constants of `celo2`; network and accumulators as released."""

    architecture: Literal["celo2"] = "celo2"
    variant: Literal["normalized", "orthogonalized"] = "normalized"
    features: tuple[str, ...] = FEATURES
    """Per-parameter feature groups; leaving one out is an ablation. At least one that vectors have."""
    hidden_size: int = Field(8, ge=1, le=16)
    hidden_layers: int = Field(2, ge=1, le=8)
    output_units: int = Field(1, ge=1, le=16)
    """The first is the direction; the released network has two more, which nothing reads."""
    momentum_decays: tuple[Decay, ...] = (0.9, 0.99, 0.999)
    """As many as `factored_decays`."""
    second_moment_decays: tuple[Decay, ...] = (0.95,)
    factored_decays: tuple[Decay, ...] = (0.9, 0.99, 0.999)
    without_gradient: Literal["stay", "step"] = "stay"
    """What a parameter does whose gradient has been exactly zero as far back as the accumulators reach."""
    output: Literal["update", "direction"] = "update"
    """An update that is ready to be added, or what remains to be multiplied by −learning rate."""
    learning_rate: float = Field(1e-3, gt=0)
    """RMS of a step of the network at the schedule's peak. Like the next two, for the output "update"."""
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of the run over which the learning rate rises; a cosine takes it down over the rest."""
    final_fraction: float = Field(0.0, ge=0, le=1)
    """Where the cosine ends, relative to the peak."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled, times each tensor's learning rate."""
    adam_below_rank: int = Field(2, ge=0)
    """AdamW trains tensors of fewer dimensions. Like all that follows, for the orthogonalised variant."""
    adam_paths: str | None = ADAM_PATHS
    """AdamW trains tensors in whose path (keys joined by '/') this expression is found; None: by rank only."""
    adam_multiplier: float = Field(20.0, gt=0)
    """AdamW's learning rate, relative to the network's."""
    adam_decays: tuple[Decay, Decay] = (0.9, 0.95)
    adam_epsilon: float = Field(1e-16, gt=0)
    """Under the root."""
    adam_debiased: bool = True
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of momenta and second moments between steps: bfloat16 halves the state (see `lopt.features.rounding`)."""

    @field_validator("features")
    @classmethod
    def _known_features(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            lookup(pf.PUBLISHED_FEATURES, name, kind="per-parameter feature")
        if len(set(names)) != len(names) or not set(names) & set(VECTOR_FEATURES):
            raise ValueError(
                f"`features` must name each feature group once, and at least one that vectors have, got {names}; "
                f"vectors have {VECTOR_FEATURES}"
            )
        return names

    @field_validator("adam_paths")
    @classmethod
    def _compilable(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(
                f"`adam_paths` must be a regular expression, got {pattern!r}: {error}"
            ) from error
        return pattern

    @model_validator(mode="after")
    def _paired_decays(self) -> Self:
        pf.require_paired_decays(self.features, len(self.momentum_decays), len(self.factored_decays))
        return self

    @classmethod
    def released(
        cls, variant: Literal["normalized", "orthogonalized"] = "normalized", **changes: Any
    ) -> Celo2Config:
        """Returns the configuration of the released transformation; `changes` for other fields.

        The network trains every tensor. The released pairing with Adam is what `adam_paths` makes of it: its
        expression for meta-training is `/b$`.
        """
        return cls.model_validate(
            {
                "variant": variant,
                "output_units": 3,
                "without_gradient": "step",
                "output": "direction",
                "adam_below_rank": 0,
                "adam_paths": None,
                "adam_epsilon": 1e-8,
                "adam_debiased": False,
                **changes,
            }
        )

    @property
    def decays(self) -> pf.Decays:
        """The accumulators' decays."""
        return pf.Decays(
            _float32(self.momentum_decays),
            _float32(self.second_moment_decays),
            _float32(self.factored_decays),
        )

    @property
    def num_features(self) -> int:
        """Inputs of the network: 30 with the defaults."""
        sizes = pf.feature_sizes(self.decays)
        return sum(sizes[name] for name in self.features)

    def build(self) -> Celo2:
        """Returns the optimizer."""
        return Celo2(self)


class Celo2:
    """The learned optimizer that a `Celo2Config` describes."""

    reads_loss = False

    def __init__(self, config: Celo2Config, *, adam_leaves: Stacked | None = None):
        """Takes the configuration and, where its own rule does not fit, which leaves AdamW trains.

        Args:
          config: Sizes and constants.
          adam_leaves: A prefix of the parameters' tree whose leaves are booleans, True for AdamW, or a function
            from the parameters to one. Stands in for `adam_below_rank` and `adam_paths`, in either variant.
        """
        self.config = config
        self.adam_leaves = adam_leaves

    def __hash__(self) -> int:
        return hash(self.config)

    def __eq__(self, other: object) -> bool:  # what a compiled update may be shared by
        return (
            isinstance(other, Celo2) and self.config == other.config and self.adam_leaves is other.adam_leaves
        )

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns initial theta, 329 numbers at the default sizes: `network` has the weights `w0, b0, w1, …`.

        The rows of `w0` are the features in the configuration's order.
        """
        c = self.config
        sizes = (c.num_features, *[c.hidden_size] * c.hidden_layers, c.output_units)
        network: nn.Weights = {}
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            layer = nn.init_linear(jax.random.fold_in(key, i), fan_in, fan_out)
            network |= {f"w{i}": layer["w"], f"b{i}": layer["b"]}
        return {"network": network}

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation that `theta` defines for a run of `num_steps` updates.

        Only the learning rate's schedule reads `num_steps`. The `update` needs `params`. Extra keywords are
        ignored, the loss among them.
        """
        total = horizon(num_steps)

        def update(
            grads: optax.Updates, state: Celo2State, params: Any = None, **extra_args: Any
        ) -> tuple[optax.Updates, Celo2State]:
            del extra_args
            require_params("celo2", params)
            return self._update(theta, total, grads, state, params)

        return optax.GradientTransformationExtraArgs(self._init, update)

    def _init(self, params: Any) -> Celo2State:
        by_network, by_adam = self._plan(params)
        dtype = jnp.dtype(self.config.state_dtype)
        zeros = lambda stack: jnp.zeros((stack.num_tensors, *stack.shape), dtype)
        return Celo2State(
            progress=jnp.zeros((), jnp.int32),
            accumulators=tuple(
                pf.init_accumulators(stack, self.config.decays, dtype) for stack in by_network
            ),
            adam=tuple(AdamMoments(zeros(stack), zeros(stack)) for stack in by_adam),
        )

    def _plan(self, params: Any) -> tuple[tuple[st.Stack, ...], tuple[st.Stack, ...]]:
        """Returns the stacks that the network trains, and those that AdamW trains."""
        leaves = jax.tree.leaves(params)
        chosen = self._trained_by_adam(params)
        nothing = jnp.zeros((0,))  # an empty tensor is in no stack
        by_network = st.plan_stacks([nothing if adam else x for x, adam in zip(leaves, chosen, strict=True)])
        by_adam = st.plan_stacks([x if adam else nothing for x, adam in zip(leaves, chosen, strict=True)])
        return by_network, by_adam

    def _trained_by_adam(self, params: Any) -> list[bool]:
        c = self.config
        if self.adam_leaves is not None:
            return jax.tree.leaves(mark_leaves(self.adam_leaves, params))
        named = jax.tree_util.tree_leaves_with_path(params)
        if c.variant == "normalized":
            return [False] * len(named)
        paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in named]
        return [
            jnp.ndim(leaf) < c.adam_below_rank
            or (c.adam_paths is not None and bool(re.search(c.adam_paths, path)))
            for path, (_, leaf) in zip(paths, named, strict=True)
        ]

    @partial(jax.jit, static_argnums=0)
    def _update(
        self, theta: Theta, num_steps: jax.Array, grads: Any, state: Celo2State, params: Any
    ) -> tuple[Any, Celo2State]:
        c, progress = self.config, state.progress
        leaves, treedef = jax.tree.flatten(params)
        gradients = jax.tree.leaves(grads)
        by_network, by_adam = self._plan(params)
        networks = _networks(c, theta["network"])
        rate = warmup_cosine(
            progress, num_steps, warmup_fraction=c.warmup_fraction, final_fraction=c.final_fraction
        )
        updates, accumulators, moments = [], [], []
        for s, stack in enumerate(by_network):
            param, grad = _stacked(stack, leaves), _stacked(stack, gradients)
            grad = jnp.clip(grad, -MAX_GRADIENT, MAX_GRADIENT)
            acc = pf.accumulate(state.accumulators[s], grad, c.decays, stack)
            features, layers = networks[stack.is_factored]
            direction = network_direction(
                stack,
                layers,
                param,
                grad,
                acc,
                progress,
                features=features,
                is_orthogonalized=c.variant == "orthogonalized",
                keeps_still=c.without_gradient == "stay",
            )
            updates.append(_finish(c, rate, direction, param))
            accumulators.append(pf.store_accumulators(acc, jnp.dtype(c.state_dtype), progress))
        num_updates = (progress + 1).astype(jnp.float32) if c.adam_debiased else None
        for s, stack in enumerate(by_adam):
            param, grad = _stacked(stack, leaves), _stacked(stack, gradients)
            new, direction = adam_step(
                state.adam[s], grad, _float32(c.adam_decays), num_updates, epsilon=c.adam_epsilon
            )
            updates.append(_finish(c, rate, direction, param, multiplier=c.adam_multiplier))
            moments.append(AdamMoments(*(store(x, jnp.dtype(c.state_dtype), progress) for x in new)))
        new_state = Celo2State(progress + 1, tuple(accumulators), tuple(moments))
        arrays = st.unstack_leaves(by_network + by_adam, updates, leaves)
        return jax.tree.unflatten(treedef, arrays), new_state


def _float32(decays: tuple[float, ...]) -> tuple[Any, ...]:
    """Rounds as the release does, which takes 1 − β in float32."""
    return tuple(map(np.float32, decays))


def _stacked(stack: st.Stack, leaves: list[jax.Array]) -> jax.Array:
    return st.stack_leaves((stack,), leaves)[0]


def _networks(
    config: Celo2Config, weights: nn.Weights
) -> dict[bool, tuple[tuple[str, ...], list[DenseLayer]]]:
    """Returns the features and layers for vectors (False) and for tensors of two or more dimensions (True)."""
    first, *others = [DenseLayer(weights[f"w{i}"], weights[f"b{i}"]) for i in range(config.hidden_layers + 1)]
    sizes = pf.feature_sizes(config.decays)
    kept = [name in VECTOR_FEATURES for name in config.features for _ in range(sizes[name])]
    for_vectors = first._replace(weight=first.weight[np.flatnonzero(kept)])
    names = tuple(name for name in config.features if name in VECTOR_FEATURES)
    return {True: (config.features, [first, *others]), False: (names, [for_vectors, *others])}


def _finish(
    config: Celo2Config, rate: jax.Array, direction: jax.Array, param: jax.Array, *, multiplier: float = 1.0
) -> jax.Array:
    """Returns the configuration's output: the update, or the direction to be multiplied by −learning rate."""
    if config.weight_decay > 0:
        direction = direction + config.weight_decay * param
    if config.output == "direction":
        return direction * multiplier
    return direction * (rate * -(config.learning_rate * multiplier))
