"""The recurrent per-parameter network of `hierarchical_gru`: one step of it, on any piece of a stack of tensors.

Features come first and the parameters are contiguous: the gates of all parameters are two broad matrix products.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt import nn
from lopt.features import gradient_scales as gs
from lopt.features.accumulators import update_ema
from lopt.types import Theta

FIXED_DECAYS = {"input_decay": 0.89, "scale_decay": 0.93}
"""Where the network does not choose them (the released code's values)."""
MAX_LOG_STEP = 33.0


class ParameterState(NamedTuple):
    """What is kept per parameter: arrays [b, *dims] float32; of the tensors of one shape, [k, *shape]."""

    hidden: tuple[jax.Array, ...]  # one per unit
    scales: gs.GradientScales
    decays: dict[str, jax.Array]  # "input_decay", "scale_decay" where the network chooses them
    log_step: jax.Array  # η of the latest update
    log_step_average: jax.Array  # η̄


class ParameterOutput(NamedTuple):
    """What the network returns for a piece: the state's next value and directions not yet normalised."""

    state: ParameterState
    directions: dict[str, jax.Array]  # [b, *dims]


class TensorSums(NamedTuple):
    """Sums over the parameters of each tensor, or of the part of it that a piece has."""

    squared_directions: dict[str, jax.Array]  # [b]
    seen: jax.Array  # [b, size + inputs]: hidden states, then inputs


def parameter_step(
    theta: Theta,
    features: tuple[str, ...],
    first: jax.Array,
    mean_log_step: jax.Array,
    bias: jax.Array,
    grad: jax.Array,
    state: ParameterState,
) -> tuple[ParameterOutput, TensorSums]:
    """Runs the network on every parameter of a piece.

    Args:
      theta: That of `hierarchical_gru`.
      features: The configuration's.
      first: Whether this is the run's first update, scalar bool: averages then start at what they average.
      mean_log_step: The mean η over the problem, scalar.
      bias: What the networks above say, [b, 3·size].
      grad: [b, *dims], small enough that its square is finite.
      state: Arrays [b, *dims].
    """
    fixed = {name: jnp.where(first, 0.0, jnp.float32(decay)) for name, decay in FIXED_DECAYS.items()}
    decays = fixed | state.decays
    scales, scaled = gs.update_scales(state.scales, grad, decays["input_decay"], decays["scale_decay"])
    inputs = jnp.stack(_inputs(features, scales, scaled, state.log_step - mean_log_step))
    spread = bias.T.reshape(*bias.T.shape, *(1,) * (grad.ndim - 1))
    hidden = nn.gru_cell_features_first(theta["parameter"], inputs, jnp.stack(state.hidden), spread)
    read = _readouts(theta, hidden, scaled)
    log_step = _clip_straight_through(state.log_step_average + read["log_step"], MAX_LOG_STEP)
    momentum = jax.nn.sigmoid(theta["log_step_momentum"])
    new_state = ParameterState(
        hidden=tuple(hidden[i] for i in range(len(state.hidden))),
        scales=scales,
        decays={name: jax.nn.sigmoid(read[name]) for name in state.decays},
        log_step=log_step,
        log_step_average=update_ema(state.log_step_average, log_step, momentum),
    )
    directions = {name: read[name] for name in theta["directions"]}
    squared = {name: _sum_of_products(value, value) for name, value in directions.items()}
    seen = jnp.concatenate([_sums(hidden), _sums(inputs)], axis=1)
    return ParameterOutput(new_state, directions), TensorSums(squared, seen)


def num_inputs(features: tuple[str, ...], num_scales: int) -> int:
    """Returns how many inputs `features` make on `num_scales` time-scales."""
    return (
        num_scales
        + (num_scales if "relative_magnitudes" in features and num_scales > 1 else 0)
        + (num_scales - 1 if "gradient_products" in features else 0)
        + ("relative_step" in features)
    )


def _inputs(
    features: tuple[str, ...], scales: gs.GradientScales, scaled: list[jax.Array], relative_step: jax.Array
) -> list[jax.Array]:
    inputs = list(scaled)
    if "relative_magnitudes" in features and len(scaled) > 1:
        inputs += gs.relative_log_magnitudes(scales)
    if "gradient_products" in features:
        inputs += [a * b for a, b in pairwise(scaled)]
    if "relative_step" in features:
        inputs.append(relative_step)
    return inputs


def _readouts(theta: Theta, hidden: jax.Array, scaled: list[jax.Array]) -> dict[str, jax.Array]:
    """Returns the affine read-outs of the hidden state by name; directions have no bias (3.3)."""
    affine = {**theta["decays"], "log_step": theta["log_step"]}
    columns = {**theta["directions"], **{name: layer["w"] for name, layer in affine.items()}}
    values = nn.product_features_first(jnp.stack(list(columns.values()), axis=1), hidden)
    read = {name: values[i] for i, name in enumerate(columns)}
    for name, layer in affine.items():
        read[name] = read[name] + layer["b"]
    for name, weights in theta.get("shortcuts", {}).items():
        for s, signal in enumerate(scaled):
            read[name] = read[name] + weights[s] * signal
    return read


def _clip_straight_through(x: jax.Array, bound: float) -> jax.Array:
    """Returns x clipped to ±bound, with the derivative of x, so that a clipped step length can be learned back."""
    return x + jax.lax.stop_gradient(jnp.clip(x, -bound, bound) - x)


def _sums(x: jax.Array) -> jax.Array:
    """Returns the sums of [features, b, *dims] over dims, [b, features]: a product with ones, which vectorises."""
    axes = tuple(range(2, x.ndim))
    return jnp.tensordot(x, jnp.ones(x.shape[2:], jnp.float32), axes=(axes, tuple(range(x.ndim - 2)))).T


def _sum_of_products(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the sums of x·y over each tensor: [b, *dims] → [b]."""
    axes = tuple(range(1, x.ndim))
    return jax.lax.dot_general(x, y, ((axes, axes), ((0,), (0,))))
