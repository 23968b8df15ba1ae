"""`pacer`, the house optimizer: a hand-designed optimizer that meta-training corrects.

At initialisation it is *exactly* trust-ratio Adam with a cosine schedule over the run: a skip connection carries
the first feature, m̂/√v̂, and both networks end in zero layers. What is learned are two residuals: a
per-parameter network that bends the direction, and a controller that raises or lowers the log step size of each
tensor from progress, the course of the loss and the tensor's growth. All inputs are unit-free. The user gives
the number of steps and nothing else.

    direction  d = skip·f + MLP(f),             divided by its RMS over the tensor
    step       s = η/√T · ½(1 + cos πt/T) · √(r₀ r) · exp(clip(controller, ±4))
    update     −s · d

r₀ and r are the tensor's initial and current RMS. Their geometric mean starts well (large tensors take large
steps) without the runaway growth that the current RMS alone allows over long horizons. η/√T keeps the distance
that a random walk of T steps covers the same at every horizon.

[1] You et al. 2020, "Large Batch Optimization for Deep Learning" (trust ratio; the norm is the mean above).
[2] Metz et al. 2022, "VeLO", App. B (progress features, one controller step per tensor).
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field, field_validator

from lopt import nn
from lopt.contract import ArchitectureConfig, horizon, require_loss, require_params
from lopt.features import grouping as gr
from lopt.features import loss_history as lh
from lopt.features import per_parameter as pp
from lopt.features.accumulators import (
    FactoredMoment,
    factored_axes,
    factored_rsqrt,
    init_factored,
    update_ema,
    update_factored,
)
from lopt.features.compiled_once import compiled_once
from lopt.features.per_tensor import reference_rms
from lopt.features.progress import FRACTION_THRESHOLDS, cosine_decay, tanh_fraction
from lopt.features.rounding import store
from lopt.registry import lookup
from lopt.types import PRNGKey, Scalar, Theta

MAX_GRADIENT = 1e15
"""Gradients are clipped here only so that their square stays finite in float32."""


class GroupState(NamedTuple):
    """Accumulators of one group of tensors, laid out as one vector of n parameters; float32 unless noted."""

    momenta: jax.Array  # [num_decays, n] in the configuration's state_dtype
    second_moment: jax.Array  # [n] in state_dtype
    factored: tuple[FactoredMoment, ...]  # one per tensor
    initial_rms: jax.Array  # [num_tensors]


class PacerState(NamedTuple):
    """The state of one run."""

    progress: jax.Array  # scalar int32: updates so far out of num_steps
    num_updates: jax.Array  # scalar float32: updates that the accumulators have seen
    groups: tuple[GroupState, ...]
    loss_history: lh.LossHistory
    log_steps: (
        jax.Array
    )  # [num_tensors], non-empty leaves in order: the controller's part of the last log step


class PacerConfig(ArchitectureConfig):
    """Sizes and constants of `pacer`; the defaults are the optimizer that the demo trains."""

    architecture: Literal["pacer"] = "pacer"
    features: tuple[str, ...] = tuple(pp.PER_PARAMETER_FEATURES)
    """Per-parameter features; the first is the one that the skip connection carries at initialisation."""
    hidden_size: int = Field(8, ge=1, le=256)
    controller_size: int = Field(16, ge=1, le=1024)
    momentum_decays: tuple[float, float, float] = (0.9, 0.99, 0.999)
    second_moment_decay: float = Field(0.99, gt=0, lt=1)
    loss_decays: tuple[float, ...] = (0.8, 0.95, 0.99)
    feature_clip: float = Field(5.0, gt=0)
    log_step_clip: float = Field(4.0, gt=0)
    base_step: float = Field(0.7, gt=0)
    """η: the first step, relative to the tensor's size, times √T."""
    max_first_step: float = Field(0.2, gt=0)
    """Largest η/√T: bounds the steps of runs that are only a few steps long."""
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of momenta and second moments between steps: bfloat16 halves the state (see `lopt.features.rounding`)."""

    @field_validator("features")
    @classmethod
    def _known_features(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("`features` must name at least one per-parameter feature")
        for name in names:
            lookup(pp.PER_PARAMETER_FEATURES, name, kind="per-parameter feature")
        return names

    def build(self) -> Pacer:
        """Returns the optimizer."""
        return Pacer(self)


class Pacer:
    """The learned optimizer that a `PacerConfig` describes."""

    reads_loss = True

    def __init__(self, config: PacerConfig):
        self.config = config

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns theta at which the optimizer is its hand-designed twin: 425 numbers at the default sizes."""
        c = self.config
        direction_key, controller_key = jax.random.split(key)
        num_inputs = len(FRACTION_THRESHOLDS) + len(c.loss_decays) + 3
        return {
            "skip": jnp.zeros((len(c.features),), jnp.float32).at[0].set(1.0),
            "direction": nn.init_mlp(
                direction_key, (len(c.features), c.hidden_size, c.hidden_size, 1), zero_output=True
            ),
            "controller": nn.init_mlp(controller_key, (num_inputs, c.controller_size, 1), zero_output=True),
        }

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation for a run of `num_steps` updates.

        Its `update` needs `params` and the keyword `value`, the loss at `params`. Extra keywords are ignored.
        """
        total = horizon(num_steps)

        def update(
            grads: optax.Updates,
            state: PacerState,
            params: Any = None,
            *,
            value: Any = None,
            **extra_args: Any,
        ) -> tuple[optax.Updates, PacerState]:
            del extra_args
            require_params("pacer", params)
            require_loss("pacer", value)
            return _update(self.config, theta, total, grads, state, params, value)

        return optax.GradientTransformationExtraArgs(lambda params: _init(self.config, params), update)


def _init(config: PacerConfig, params: Any) -> PacerState:
    leaves = jax.tree.leaves(params)
    grouping = gr.plan(leaves)
    return PacerState(
        progress=jnp.zeros((), jnp.int32),
        num_updates=jnp.zeros((), jnp.float32),
        groups=tuple(
            _init_group(config, grouping, g, vector) for g, vector in enumerate(gr.gather(grouping, leaves))
        ),
        loss_history=lh.init_loss_history(len(config.loss_decays)),
        log_steps=jnp.zeros((sum(len(group) for group in grouping.groups),), jnp.float32),
    )


def _init_group(config: PacerConfig, grouping: gr.Grouping, group: int, vector: jax.Array) -> GroupState:
    return GroupState(
        momenta=jnp.zeros((len(config.momentum_decays), vector.size), config.state_dtype),
        second_moment=jnp.zeros((vector.size,), config.state_dtype),
        factored=tuple(_init_factored(piece) for piece in gr.pieces(grouping, group, vector)),
        initial_rms=jnp.sqrt(gr.tensor_mean(grouping, group, jnp.square(vector))),
    )


def _init_factored(piece: jax.Array) -> FactoredMoment:
    if piece.ndim < 2:  # vectors and scalars use the second moment itself
        return FactoredMoment(jnp.zeros((0,), jnp.float32), jnp.zeros((0,), jnp.float32))
    return init_factored(piece.shape)


@partial(jax.jit, static_argnums=0)
def _update(
    config: PacerConfig,
    theta: Theta,
    num_steps: jax.Array,
    grads: Any,
    state: PacerState,
    params: Any,
    value: Any,
) -> tuple[Any, PacerState]:
    leaves, treedef = jax.tree.flatten(params)
    grouping = gr.plan(leaves)
    if not grouping.groups:
        return grads, state
    loss = jnp.asarray(value, jnp.float32)
    trend = lh.loss_trend(state.loss_history, loss, config.loss_decays)
    vectors = gr.gather(grouping, leaves)
    rms = [jnp.sqrt(gr.tensor_mean(grouping, g, jnp.square(vector))) for g, vector in enumerate(vectors)]
    steps, log_steps = _step_sizes(config, theta["controller"], num_steps, state, grouping, rms, trend)
    groups, updates = [], []
    for g, (vector, grad) in enumerate(
        zip(vectors, gr.gather(grouping, jax.tree.leaves(grads)), strict=True)
    ):
        grad = jnp.clip(grad, -MAX_GRADIENT, MAX_GRADIENT)
        group = _accumulate(config, grouping, g, state.groups[g], grad)
        count = state.num_updates + 1.0
        root = _inverse_factored_root(config, grouping, g, group, count)
        compute = partial(_direction, config, theta, grouping, g, group, vector, grad, rms[g], root, count)
        direction = compiled_once(state.progress, compute)
        length = jnp.sqrt(gr.tensor_mean(grouping, g, jnp.square(direction)))
        scale = steps[g] / jnp.maximum(length, 1e-12)
        updates.append(gr.scaled(grouping, g, -direction, scale))
        groups.append(_store(config, group, state.num_updates))
    cast = [u.astype(leaf.dtype) for u, leaf in zip(gr.scatter(grouping, updates), leaves, strict=True)]
    history = lh.update_loss_history(state.loss_history, loss, config.loss_decays)
    new_state = PacerState(
        progress=state.progress + 1,
        num_updates=state.num_updates + 1.0,
        groups=tuple(groups),
        loss_history=history,
        log_steps=_in_leaf_order(grouping, log_steps),
    )
    return jax.tree.unflatten(treedef, cast), new_state


def _in_leaf_order(grouping: gr.Grouping, values: jax.Array) -> jax.Array:
    """Returns one value per tensor, [num_tensors], given group by group, in the order of the non-empty leaves."""
    if len(grouping.groups) == 1:
        return values
    return values[np.argsort([i for group in grouping.groups for i in group])]


def _accumulate(
    config: PacerConfig, grouping: gr.Grouping, group: int, state: GroupState, grad: jax.Array
) -> GroupState:
    """Returns the accumulators brought forward by the gradient, all float32."""
    squared = jnp.square(grad)
    decay = config.second_moment_decay
    rates = jnp.asarray(config.momentum_decays, jnp.float32)[:, None]
    return state._replace(
        momenta=rates * state.momenta.astype(jnp.float32) + (1.0 - rates) * grad[None],
        second_moment=update_ema(state.second_moment.astype(jnp.float32), squared, decay),
        factored=tuple(
            update_factored(moment, piece, decay, shape=piece.shape) if piece.ndim >= 2 else moment
            for moment, piece in zip(state.factored, gr.pieces(grouping, group, squared), strict=True)
        ),
    )


def _store(config: PacerConfig, group: GroupState, num_updates: jax.Array) -> GroupState:
    """Returns the accumulators as they are kept between steps."""
    return group._replace(
        momenta=store(group.momenta, config.state_dtype, num_updates),
        second_moment=store(group.second_moment, config.state_dtype, num_updates),
    )


def _direction(
    config: PacerConfig,
    theta: Theta,
    grouping: gr.Grouping,
    group: int,
    state: GroupState,
    param: jax.Array,
    grad: jax.Array,
    rms: jax.Array,
    inverse_factored_root: jax.Array,
    count: jax.Array,
) -> jax.Array:
    """Returns the direction of every parameter of a group, not yet of unit length: shape [n].

    `inverse_factored_root` is handed in as an array in memory: inside the loop over the parameters, its row and
    column factors would be gathered element by element, at four times the cost where a side is a power of two.
    """
    acc = pp.Accumulators(
        param=param,
        inverse_param_rms=gr.spread(grouping, group, jnp.where(rms > 0, 1.0 / jnp.maximum(rms, 1e-30), 0.0)),
        grad=grad,
        momenta=state.momenta,
        second_moment=state.second_moment,
        inverse_factored_root=inverse_factored_root,
        num_updates=count,
        momentum_decays=config.momentum_decays,
        second_moment_decay=config.second_moment_decay,
    )
    features = pp.compute(config.features, acc, clip=config.feature_clip)
    return nn.dot_of_arrays(theta["skip"], features) + nn.mlp_of_arrays(theta["direction"], features)[0]


def _inverse_factored_root(
    config: PacerConfig, grouping: gr.Grouping, group: int, state: GroupState, count: jax.Array
) -> jax.Array:
    """Returns v̂^(−1/2) from rows and columns where a tensor has them, else elementwise: shape [n]."""
    decay = config.second_moment_decay
    diagonal = gr.pieces(grouping, group, state.second_moment)
    parts = [
        pp.inverse_root(v, decay, count)
        if factored_axes(v.shape) is None
        else factored_rsqrt(moment, v.shape, decay, count, floor=pp.VARIANCE_FLOOR)
        for v, moment in zip(diagonal, state.factored, strict=True)
    ]
    return jnp.concatenate([part.reshape(-1) for part in parts]) if len(parts) > 1 else parts[0].reshape(-1)


def _step_sizes(
    config: PacerConfig,
    controller: nn.Weights,
    num_steps: jax.Array,
    state: PacerState,
    grouping: gr.Grouping,
    rms: list[jax.Array],
    trend: jax.Array,
) -> tuple[list[jax.Array], jax.Array]:
    """Returns the RMS of each tensor's update, one array per group, and what the controller added to its log."""
    ranks = [len(grouping.shapes[i]) for group in grouping.groups for i in group]
    started = jnp.concatenate([group.initial_rms for group in state.groups])
    initial = reference_rms(started, tuple(rank >= 2 for rank in ranks))
    current = jnp.where(started > 0, jnp.concatenate(rms), initial)
    growth = jnp.log(jnp.maximum(current, 1e-12) / jnp.maximum(initial, 1e-12))
    progress = state.progress.astype(jnp.float32)
    shared = jnp.concatenate(
        [
            tanh_fraction(progress / num_steps),
            trend,
            jnp.log10(num_steps)[None] - 2.3,
        ]
    )
    rank_feature = jnp.asarray([min(rank, 4) - 1.0 for rank in ranks], jnp.float32)
    per_tensor = jnp.stack([rank_feature, jnp.clip(0.5 * growth, -3.0, 3.0)], axis=1)
    inputs = jnp.concatenate([jnp.broadcast_to(shared[None], (len(ranks), shared.size)), per_tensor], axis=1)
    log_step = jnp.clip(nn.mlp(controller, inputs)[:, 0], -config.log_step_clip, config.log_step_clip)
    first = jnp.minimum(config.base_step * jax.lax.rsqrt(num_steps), config.max_first_step)
    steps = first * cosine_decay(progress, num_steps) * initial * jnp.exp(0.5 * growth + log_step)
    bounds = [0]
    for group in grouping.groups:
        bounds.append(bounds[-1] + len(group))
    return [steps[low:high] for low, high in pairwise(bounds)], log_step
