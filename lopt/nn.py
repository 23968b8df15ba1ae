"""Small networks as init/apply pairs over plain dictionaries: vmapping over weights is then nothing special."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp

Weights = dict[str, jax.Array]


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
        x = x @ weights[f"w{i}"] + jnp.expand_dims(weights[f"b{i}"], tuple(range(x.ndim - 1)))
        if i < num_layers - 1:
            x = jax.nn.relu(x)
    return x


def mlp_features_first(weights: Weights, x: jax.Array) -> jax.Array:
    """Returns the same network with the feature axis in front: [in, n] → [out, n].

    With n parameters in the contiguous axis each layer is one broad matrix product.
    """
    num_layers = len(weights) // 2
    for i in range(num_layers):
        x = weights[f"w{i}"].T @ x + jnp.expand_dims(weights[f"b{i}"], 1)
        if i < num_layers - 1:
            x = jax.nn.relu(x)
    return x
