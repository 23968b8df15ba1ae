"""Small networks as init/apply pairs over plain dictionaries: vmapping over weights is then nothing special.

Where a network runs on every parameter of a model, features come first ([features, n], parameters contiguous);
elsewhere they are the last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Weights = dict[str, jax.Array]


class LstmState(NamedTuple):
    """What an LSTM carries: two arrays [..., hidden], or [hidden, ...] with features first."""

    hidden: jax.Array
    cell: jax.Array


def truncated_normal(key: jax.Array, shape: tuple[int, ...], stddev: float) -> jax.Array:
    """Returns normal draws cut off at two deviations, times `stddev`; what remains has 0.88 of that deviation."""
    return jnp.float32(stddev) * jax.random.truncated_normal(key, -2.0, 2.0, shape, jnp.float32)


def init_linear(key: jax.Array, num_inputs: int, num_outputs: int) -> Weights:
    """Returns `w` [in, out], truncated normal with stddev 1/√in, and `b` [out], zero."""
    return {
        "w": truncated_normal(key, (num_inputs, num_outputs), max(num_inputs, 1) ** -0.5),
        "b": jnp.zeros((num_outputs,), jnp.float32),
    }


def linear(weights: Weights, x: jax.Array) -> jax.Array:
    """Returns x·w + b: [..., in] → [..., out]."""
    return _affine(weights["w"], weights["b"], x)


def linear_features_first(weights: Weights, x: jax.Array) -> jax.Array:
    """Returns the same layer with the feature axis in front: [in, ...] → [out, ...]."""
    return product_features_first(weights["w"], x) + jnp.expand_dims(weights["b"], tuple(range(1, x.ndim)))


def product_features_first(w: jax.Array, x: jax.Array) -> jax.Array:
    """Returns wᵀ·x over the leading axis: w [in, out], x [in, ...] → [out, ...]."""
    return jnp.tensordot(w, x, axes=((0,), (0,)))


def init_mlp(key: jax.Array, sizes: tuple[int, ...], *, zero_output: bool) -> Weights:
    """Returns weights `w0, b0, w1, …`: normal with variance 2/fan-in, biases zero.

    Args:
      key: PRNG key.
      sizes: Widths from the input to the output.
      zero_output: Start the last layer at zero, so that the network adds nothing until it is trained.
    """
    weights: Weights = {}
    num_layers = len(sizes) - 1
    for i, (layer_key, (fan_in, fan_out)) in enumerate(
        zip(jax.random.split(key, num_layers), pairwise(sizes), strict=True)
    ):
        scale = 0.0 if zero_output and i == num_layers - 1 else (2.0 / fan_in) ** 0.5
        weights[f"w{i}"] = scale * jax.random.normal(layer_key, (fan_in, fan_out), jnp.float32)
        weights[f"b{i}"] = jnp.zeros((fan_out,), jnp.float32)
    return weights


def mlp(weights: Weights, x: jax.Array) -> jax.Array:
    """Returns the network's output, ReLU between layers: [..., in] → [..., out]."""
    num_layers = len(weights) // 2
    for i in range(num_layers):
        x = _affine(weights[f"w{i}"], weights[f"b{i}"], x)
        if i < num_layers - 1:
            x = jax.nn.relu(x)
    return x


def mlp_of_arrays(weights: Weights, inputs: Sequence[jax.Array]) -> list[jax.Array]:
    """Returns the same network on separate arrays, one per input: one array of their shape per output.

    Written out as multiply-adds of whole arrays, which is one loop over the elements: three times as fast as
    matrix products with so few columns, and nothing is stacked. For layers of up to about 16 units.
    """
    num_layers = len(weights) // 2
    outputs = list(inputs)
    for i in range(num_layers):
        layer, bias = weights[f"w{i}"], weights[f"b{i}"]
        outputs = [dot_of_arrays(layer[:, j], outputs) + bias[j] for j in range(layer.shape[1])]
        if i < num_layers - 1:
            outputs = [jax.nn.relu(x) for x in outputs]
    return outputs


def dot_of_arrays(coefficients: jax.Array, arrays: Sequence[jax.Array]) -> jax.Array:
    """Returns Σᵢ coefficients[i] · arrays[i]; coefficients [in], arrays of one shape."""
    total = coefficients[0] * arrays[0]
    for i in range(1, len(arrays)):
        total = total + coefficients[i] * arrays[i]
    return total


def init_lstm(key: jax.Array, num_inputs: int, hidden_size: int) -> Weights:
    """Returns `w` [in + hidden, 4·hidden], truncated normal with stddev 1/√(in + hidden), and `b` [4·hidden], zero.

    Rows: the inputs, then the hidden state. Columns: the gates i, g, f, o.
    """
    return init_linear(key, num_inputs + hidden_size, 4 * hidden_size)


def lstm_cell(weights: Weights, x: jax.Array, state: LstmState) -> LstmState:
    """Returns the next state; its `hidden` is the cell's output.

        i, g, f, o = split([x, h]·w + b),   c' = σ(f + 1)·c + σ(i)·tanh(g),   h' = σ(o)·tanh(c')

    Args:
      weights: From `init_lstm`.
      x: [..., in].
      state: [..., hidden] each.
    """
    return _lstm_state(linear(weights, jnp.concatenate([x, state.hidden], axis=-1)), state, axis=-1)


def lstm_cell_features_first(weights: Weights, x: jax.Array, state: LstmState) -> LstmState:
    """Returns the same cell's next state with the feature axis in front: x [in, ...], state [hidden, ...]."""
    inputs = jnp.concatenate([x, state.hidden], axis=0)
    return _lstm_state(linear_features_first(weights, inputs), state, axis=0)


def _lstm_state(gates: jax.Array, state: LstmState, *, axis: int) -> LstmState:
    i, g, f, o = jnp.split(gates, 4, axis=axis)
    cell = jax.nn.sigmoid(f + 1.0) * state.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return LstmState(jax.nn.sigmoid(o) * jnp.tanh(cell), cell)


def init_gru(
    key: jax.Array, num_inputs: int, hidden_size: int, *, scale: float = 1.0, gate_bias: float = 0.0
) -> Weights:
    """Returns `w` [in + hidden, 3·hidden], normal with stddev scale/√(in + hidden), and `b` [3·hidden].

    Rows: the inputs, then the hidden state. Columns: reset, update, candidate. The bias of both gates starts at
    `gate_bias` (where it is positive, the cell starts by keeping what it has), the candidate's at zero.
    """
    fan_in = max(num_inputs + hidden_size, 1)
    weight = jax.random.normal(key, (num_inputs + hidden_size, 3 * hidden_size), jnp.float32)
    gates = jnp.full((2 * hidden_size,), gate_bias, jnp.float32)
    return {
        "w": jnp.float32(scale * fan_in**-0.5) * weight,
        "b": jnp.concatenate([gates, jnp.zeros((hidden_size,), jnp.float32)]),
    }


def gru_cell(weights: Weights, x: jax.Array, hidden: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """Returns the next hidden state of a gated recurrent unit (Cho et al. 2014).

        r, u = σ(split([x, h]·w_ru + b)),   c = tanh([x, r·h]·w_c + b),   h' = u·h + (1 − u)·c

    Args:
      weights: From `init_gru`.
      x: [..., in].
      hidden: [..., hidden].
      bias: Added to the pre-activations, broadcastable to [..., 3·hidden]; None for none.
    """
    front = lambda a: jnp.moveaxis(a, -1, 0)
    extra = None if bias is None else front(bias)
    return jnp.moveaxis(gru_cell_features_first(weights, front(x), front(hidden), extra), 0, -1)


def gru_cell_features_first(
    weights: Weights, x: jax.Array, hidden: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    """Returns the same with the feature axis in front: x [in, ...], hidden [hidden, ...], bias [3·hidden, ...]."""
    num_inputs, size = x.shape[0], hidden.shape[0]
    w = weights["w"]
    # One product for everything that is known before the reset gate: the candidate's recurrent block is left out.
    known = w.at[num_inputs:, 2 * size :].set(0.0)
    pre = linear_features_first({"w": known, "b": weights["b"]}, jnp.concatenate([x, hidden]))
    if bias is not None:
        pre = pre + bias
    reset, update, candidate = jnp.split(pre, 3)
    recurrent = product_features_first(w[num_inputs:, 2 * size :], jax.nn.sigmoid(reset) * hidden)
    update = jax.nn.sigmoid(update)
    return update * hidden + (1.0 - update) * jnp.tanh(candidate + recurrent)


def product(x: jax.Array, w: Any) -> jax.Array:
    """Returns x·w over x's last axis and w's first: [..., n] and [n, *rest] → [..., *rest].

    Args:
      x: An array.
      w: An array, or a weight that knows how to multiply (`lopt.perturbations.shared.PerturbedWeight`).
    """
    if isinstance(w, jax.Array | np.ndarray):
        return jnp.tensordot(x, w, axes=1)
    result: jax.Array = w.product(x)
    return result


def _affine(w: Any, b: jax.Array, x: jax.Array) -> jax.Array:
    return product(x, w) + jnp.expand_dims(b, tuple(range(x.ndim - 1)))
