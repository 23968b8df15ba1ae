"""Layer and batch normalisation, as Flax modules.

Flax's own mix a 16-bit input with its float32 statistics by implicit promotion, which low-precision tasks under
strict promotion must refuse. Here statistics and normalisation are float32, explicitly, and the result has the
input's type; names of parameters and state are Flax's. Scales start at one by their name (`default_leaf_init`).
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

NormalizationName = Literal["none", "layer_norm", "batch_norm"]
EPSILON = 1e-5
DECAY = 0.9
zeros = nn.initializers.zeros_init()


def normalize(x: jax.Array, kind: NormalizationName) -> jax.Array:
    """Returns x [..., features] through a new layer of that kind, inside a compact module; "none" returns x."""
    if kind == "none":
        return x
    return LayerNorm()(x) if kind == "layer_norm" else BatchNorm()(x)


class LayerNorm(nn.Module):
    """Each example to mean 0 and variance 1 over the last axis, then a learned scale and offset."""

    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., features] to the same shape."""
        exact = x.astype(jnp.float32)
        mean = exact.mean(axis=-1, keepdims=True)
        var = exact.var(axis=-1, keepdims=True)
        return _scale_and_offset(self, exact - mean, var, self.epsilon).astype(x.dtype)


class BatchNorm(nn.Module):
    """Each feature to mean 0 and variance 1 over all other axes, then a learned scale and offset.

    Always by the batch's statistics, as in the release; their running averages are kept in "batch_stats".
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, ..., features] to the same shape."""
        exact = x.astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))
        mean, var = exact.mean(axis=axes, keepdims=True), exact.var(axis=axes, keepdims=True)
        for name, value in (("mean", mean), ("var", var)):
            running = self.variable("batch_stats", name, jnp.zeros, x.shape[-1:], jnp.float32)
            running.value = DECAY * running.value + (1 - DECAY) * value.reshape(-1)
        return _scale_and_offset(self, exact - mean, var, EPSILON).astype(x.dtype)


def _scale_and_offset(module: nn.Module, centred: jax.Array, var: jax.Array, epsilon: float) -> jax.Array:
    shape = (1,) * (centred.ndim - 1) + (-1,)
    scale = module.param("scale", zeros, centred.shape[-1:], jnp.float32).astype(jnp.float32)
    bias = module.param("bias", zeros, centred.shape[-1:], jnp.float32).astype(jnp.float32)
    return centred * lax.rsqrt(var + epsilon) * scale.reshape(shape) + bias.reshape(shape)
