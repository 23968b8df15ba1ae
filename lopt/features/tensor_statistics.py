"""What the RNN-MLP's two networks are told of every tensor: named groups of numbers, [k, n] for k tensors.

`SUMMARIES` are the inputs of the tensor-level LSTM: statistics as sign and clipped logarithm, so that they have the
same size whatever the units. `CONTEXT` goes to the per-parameter network, next to what it sees of each parameter.

[1] Metz et al. 2020, App. C (`compute_tensor_features`, `compute_per_param_features`). The order of the names is
the published weights'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lopt.features.sinusoids import TIME_SCALES, sinusoidal_step
from lopt.features.stacks import Stack, per_tensor

NUM_SHAPE_ENTRIES = 4


def clipped_log_magnitude(x: jax.Array) -> jax.Array:
    """Returns clip(log(1e-8 + |x|), −5, 5), elementwise."""
    return jnp.clip(jnp.log(1e-8 + jnp.abs(x)), -5.0, 5.0)


class TensorMoments(NamedTuple):
    """Mean and variance of each tensor of a stack; [k] each."""

    mean: jax.Array
    variance: jax.Array


def tensor_moments(stack: Stack, arrays: Sequence[jax.Array]) -> TensorMoments:
    """Returns the moments of each tensor over the elements of all `arrays`, [k, *shape] each."""
    means = [jnp.mean(x, axis=stack.tensor_axes) for x in arrays]
    mean = sum(means[1:], start=means[0]) / len(arrays)
    center = per_tensor(stack, mean)
    squares = [jnp.mean(jnp.square(x - center), axis=stack.tensor_axes) for x in arrays]
    return TensorMoments(mean, sum(squares[1:], start=squares[0]) / len(arrays))


def tensor_norm(stack: Stack, array: jax.Array) -> jax.Array:
    """Returns the root of the sum of squares of each tensor: [k, *shape] → [k].

    Floored at 1e-15, so that its derivative at zero is zero: biases start there.
    """
    return jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(array), axis=stack.tensor_axes), 1e-30))


class SummaryInputs(NamedTuple):
    """What the summaries of one stack are computed from."""

    stack: Stack
    is_scalar: np.ndarray
    """[k]: which tensors have no axis (a stack holds them with vectors of one element)."""
    momentum: TensorMoments
    second_moment: TensorMoments
    param: TensorMoments
    param_norm: jax.Array  # [k]
    gradient_norm: jax.Array  # [k], of the clipped gradient
    from_lstm: jax.Array  # [n]: the last step's message of all tensors' LSTMs
    from_mlp: jax.Array  # [k, n]: the last step's message of each tensor's per-parameter networks
    train_loss: jax.Array  # scalar, standardised
    valid_loss: jax.Array


def _column(values: jax.Array) -> jax.Array:
    return values[:, None]


def _shared(stack: Stack, values: jax.Array) -> jax.Array:
    """Repeats numbers that are the same for all tensors: [n] → [k, n]."""
    return jnp.broadcast_to(values.reshape(1, -1), (stack.num_tensors, values.size))


def _log_shape(stack: Stack) -> jax.Array:
    """Returns log(length) − 1 of the first four axes, lengths padded with ones: about zero on average."""
    padded = (*stack.shape, 1, 1, 1, 1)[:NUM_SHAPE_ENTRIES]
    return _shared(stack, jnp.asarray([math.log(n) - 1.0 for n in padded], jnp.float32))


SUMMARIES: dict[str, Callable[[SummaryInputs], jax.Array]] = {
    "from_lstm": lambda x: _shared(x.stack, x.from_lstm),
    "from_mlp": lambda x: x.from_mlp,
    "gradient_norm": lambda x: _column(clipped_log_magnitude(x.gradient_norm)),
    "is_scalar": lambda x: _column(jnp.asarray(np.where(x.is_scalar, 1.0, -1.0), jnp.float32)),
    "momentum_mean": lambda x: _column(clipped_log_magnitude(x.momentum.mean)),
    "momentum_sign": lambda x: _column(jnp.sign(x.momentum.mean)),
    "second_moment_mean": lambda x: _column(clipped_log_magnitude(x.second_moment.mean)),
    "second_moment_sign": lambda x: _column(jnp.sign(x.second_moment.mean)),
    "param_mean": lambda x: _column(clipped_log_magnitude(x.param.mean)),
    "param_sign": lambda x: _column(jnp.sign(x.param.mean)),
    "param_norm": lambda x: _column(clipped_log_magnitude(x.param_norm)),
    "shape": lambda x: _log_shape(x.stack),
    "train_loss": lambda x: _shared(x.stack, x.train_loss),
    "valid_loss": lambda x: _shared(x.stack, x.valid_loss),
    "momentum_variance": lambda x: _column(clipped_log_magnitude(x.momentum.variance)),
    "second_moment_variance": lambda x: _column(clipped_log_magnitude(x.second_moment.variance)),
    "param_variance": lambda x: _column(clipped_log_magnitude(x.param.variance)),
}
"""Name → inputs of the tensor-level network."""


class ContextInputs(NamedTuple):
    """What the context of one stack is computed from."""

    stack: Stack
    step: jax.Array  # scalar float32: updates so far
    num_tensors: int  # of the whole model
    param_norm: jax.Array  # [k]
    from_lstm: jax.Array  # [k, n]: this step's message of each tensor's LSTM


def _log_size(stack: Stack) -> jax.Array:
    return _shared(stack, jnp.asarray(math.log(math.prod(stack.shape)), jnp.float32))


CONTEXT: dict[str, Callable[[ContextInputs], jax.Array]] = {
    "step": lambda x: _shared(x.stack, sinusoidal_step(x.step)),
    "num_tensors": lambda x: _shared(x.stack, jnp.asarray(math.log(x.num_tensors) - 1.0, jnp.float32)),
    "param_norm": lambda x: _column(jnp.log(x.param_norm + 1e-8)),
    "size": lambda x: _log_size(x.stack),
    "from_lstm": lambda x: x.from_lstm,
}
"""Name → per-tensor inputs of the per-parameter network."""


def summary_sizes(num_from_lstm: int, num_from_mlp: int) -> dict[str, int]:
    """Returns how many numbers each summary is, given the lengths of the two messages."""
    many = {"from_lstm": num_from_lstm, "from_mlp": num_from_mlp, "shape": NUM_SHAPE_ENTRIES}
    return {name: many.get(name, 1) for name in SUMMARIES}


def context_sizes(num_from_lstm: int) -> dict[str, int]:
    """Returns how many numbers each context group is, given the length of the LSTM's message."""
    many = {"from_lstm": num_from_lstm, "step": len(TIME_SCALES)}
    return {name: many.get(name, 1) for name in CONTEXT}
