"""The per-parameter network: a tiny MLP applied to every parameter of a stack of tensors.

It is where a learned optimizer spends its time, and where a straightforward implementation is 50 to 200 times
slower than Adam: a trailing feature axis keeps the compiler from fusing anything. Here

- features stay separate arrays, and no feature stack is ever written to memory,
- the layers are unrolled multiply-adds, so features, layers and outputs are one loop over the parameters,
- a feature's normaliser is folded into the first layer's weights, (f·s)·w = f·(s·w),
- features that are constant along an axis (row and column factors, per-tensor scalars) have length 1 there; they
  pass the first layer at that size and enter the hidden units as row, column and tensor biases.

For hidden layers of more than about 16 units, where unrolling only makes code, use `wide_mlp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt.features.stacks import Stack

Features = Sequence[jax.Array]
"""One array per feature, each broadcastable to [k, *shape] with k and the rank in place."""


class DenseLayer(NamedTuple):
    """One layer's weights: [in, out] and [out] shared by all tensors, or [k, in, out] and [k, out]."""

    weight: jax.Array
    bias: jax.Array


def rms_scales(stack: Stack, features: Features, *, epsilon: float) -> list[jax.Array]:
    """Returns (ε + mean f²)^(−1/2) over each tensor, for each feature: arrays [k, 1, …].

    A feature of length 1 along an axis has the mean of its short form: the mean of a broadcast is the mean.
    """
    return [
        jax.lax.rsqrt(epsilon + jnp.mean(jnp.square(f), axis=stack.tensor_axes, keepdims=True))
        for f in features
    ]


def narrow_mlp(
    stack: Stack, layers: Sequence[DenseLayer], features: Features, *, scales: Features | None = None
) -> list[jax.Array]:
    """Returns the network's outputs, ReLU between layers: one array [k, *shape] per output unit.

    Args:
      stack: The tensors.
      layers: At least two. The first one's rows are in the order of `features`.
      features: The inputs.
      scales: Multiplied into each feature, [k, 1, …]; None for ones.
    """
    first = layers[0]
    weight = [
        [_coefficient(stack, first.weight[..., i, j]) for j in range(first.bias.shape[-1])]
        for i in range(len(features))
    ]
    if scales is not None:
        weight = [[w * s for w in row] for row, s in zip(weight, scales, strict=True)]
    hidden = _first_layer(stack, weight, first.bias, features)
    for layer in layers[1:]:
        inputs = [jax.nn.relu(h) for h in hidden]
        hidden = [
            _dot([_coefficient(stack, layer.weight[..., i, j]) for i in range(len(inputs))], inputs)
            + _coefficient(stack, layer.bias[..., j])
            for j in range(layer.bias.shape[-1])
        ]
    return hidden


def _first_layer(
    stack: Stack, weight: list[list[jax.Array]], bias: jax.Array, features: Features
) -> list[jax.Array]:
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, feature in enumerate(features):
        by_shape.setdefault(feature.shape, []).append(i)
    hidden = [_coefficient(stack, bias[..., j]) for j in range(bias.shape[-1])]
    for indices in sorted(by_shape.values(), key=lambda group: features[group[0]].size):
        sums = [
            _dot([weight[i][j] for i in indices], [features[i] for i in indices]) for j in range(len(hidden))
        ]
        if features[indices[0]].shape[1:] != stack.shape:
            # Without the barrier the compiler would recompute these short sums for every parameter.
            sums = list(jax.lax.optimization_barrier(tuple(sums)))
        hidden = [h + s for h, s in zip(hidden, sums, strict=True)]
    return hidden


def _dot(coefficients: list[jax.Array], arrays: list[jax.Array]) -> jax.Array:
    total = coefficients[0] * arrays[0]
    for c, a in zip(coefficients[1:], arrays[1:], strict=True):
        total = total + c * a
    return total


def _coefficient(stack: Stack, value: jax.Array) -> jax.Array:
    """Reshapes a weight, shared () or per tensor [k], so that it broadcasts over the stack."""
    return value.reshape((-1,) + (1,) * len(stack.shape))


def wide_mlp(
    stack: Stack, layers: Sequence[DenseLayer], features: Features, *, scales: Features | None = None
) -> list[jax.Array]:
    """Returns the same network as `narrow_mlp` by matrix products, features first; weights shared by all tensors.

    Costs memory for the inputs and one hidden layer per parameter.
    """
    full = (stack.num_tensors, *stack.shape)
    scaled = features if scales is None else [f * s for f, s in zip(features, scales, strict=True)]
    x = jnp.stack([jnp.broadcast_to(f, full).reshape(-1) for f in scaled])
    for i, layer in enumerate(layers):
        x = layer.weight.T @ x + layer.bias[:, None]
        if i < len(layers) - 1:
            x = jax.nn.relu(x)
    return [row.reshape(full) for row in x]
