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

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lopt.features.stacks import Stack

MAX_NARROW = 16
"""Units per hidden layer up to which `narrow_mlp` is the faster form."""

Features = Sequence[jax.Array]
"""One array per feature, each broadcastable to [k, *shape] with k and the rank in place."""


class DenseLayer(NamedTuple):
    """One layer's weights: [in, out] and [out] shared by all tensors, or [k, in, out] and [k, out]."""

    weight: jax.Array
    bias: jax.Array


def rms_scales(stack: Stack, features: Features, *, epsilon: float) -> jax.Array:
    """Returns (ε + mean f²)^(−1/2) over each tensor, for each feature: [k, num_features].

    A feature of length 1 along an axis has the mean of its short form: the mean of a broadcast is the mean.
    """
    axes = tuple(range(1, len(stack.shape) + 1))
    sums = jnp.stack([jnp.sum(jnp.square(f), axis=axes) for f in features], axis=1)
    counts = np.asarray([math.prod(f.shape[1:]) for f in features], np.float32)
    return jax.lax.rsqrt(epsilon + sums / counts[None])


def narrow_mlp(
    stack: Stack, layers: Sequence[DenseLayer], features: Features, *, scales: jax.Array | None = None
) -> list[jax.Array]:
    """Returns the network's outputs, ReLU between layers: one array [k, *shape] per output unit.

    Args:
      stack: The tensors.
      layers: At least two. The first one's rows are in the order of `features`.
      features: The inputs.
      scales: Multiplied into each feature, [k, num_features]; None for ones.
    """
    first = layers[0]
    weight = first.weight.reshape((-1, *first.weight.shape[-2:]))
    if scales is not None:
        weight = weight * scales[..., None]
    hidden = _first_layer(stack, weight, first.bias, features)
    for layer in layers[1:]:
        inputs = [jax.nn.relu(h) for h in hidden]
        hidden = [
            _dot([_coefficient(stack, layer.weight[..., i, j]) for i in range(len(inputs))], inputs)
            + _coefficient(stack, layer.bias[..., j])
            for j in range(layer.bias.shape[-1])
        ]
    return hidden


def _first_layer(stack: Stack, weight: jax.Array, bias: jax.Array, features: Features) -> list[jax.Array]:
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, feature in enumerate(features):
        by_shape.setdefault(feature.shape, []).append(i)
    hidden = [_coefficient(stack, bias[..., j]) for j in range(bias.shape[-1])]
    for shape, indices in sorted(by_shape.items(), key=lambda group: math.prod(group[0])):
        group = [features[i] for i in indices]
        coefficients = [[_coefficient(stack, weight[..., i, j]) for i in indices] for j in range(len(hidden))]
        sums = [_dot(of_unit, group) for of_unit in coefficients]
        if shape[1:] != stack.shape:
            # Merged into the loop over the parameters, they would be computed again for every parameter.
            sums = jax.lax.optimization_barrier(sums)
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


def wide_mlp(layers: Sequence[DenseLayer]) -> Callable[[Features, jax.Array], list[jax.Array]]:
    """Returns the network of `narrow_mlp` as a function of features and scales, made of matrix products.

    Its intermediates, the inputs and a hidden layer, are arrays of their own: make the network once, and apply it
    to pieces of a stack that stay in cache (`lopt.features.chunks`), where the features are computed too.

    Args:
      layers: At least one. Weights are shared by all tensors, [in, out]; a bias is shared, [out].

    Returns:
      A function of features, arrays [b, *dims] of one shape (b tensors, or parts of them), and the scales that are
      multiplied into them, [b, num_features]. It returns one array [b, *dims] per output unit. What is the same for
      all parameters is no feature: it belongs in the first layer's bias.
    """
    # Turned around here, once: the compiler would move it into the product of every piece.
    weights = jax.lax.optimization_barrier([layer.weight.T for layer in layers])

    def apply(features: Features, scales: jax.Array) -> list[jax.Array]:
        dims = tuple(range(1, features[0].ndim))
        x = jnp.stack([f * jnp.expand_dims(scales[:, i], dims) for i, f in enumerate(features)])
        for i, (weight, layer) in enumerate(zip(weights, layers, strict=True)):
            x = jax.nn.relu(x) if i else x
            x = jnp.tensordot(weight, x, axes=1) + jnp.expand_dims(layer.bias, (1, *(d + 1 for d in dims)))
        return [x[i] for i in range(x.shape[0])]

    return apply
