"""The inner models, as Flax modules. The activation is handed in, because it may be traced.

Parameters are declared as zeros: Flax is asked for their shapes only; `initializers.initialize` fills them.

Convolutions are written as nine shifted slices and one matrix product: learned-optimizer training vmaps over
parameters, and a convolution vmapped over its kernel becomes a grouped one, which XLA runs slowly on CPUs.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

Activation = Callable[[jax.Array], jax.Array]
zeros = nn.initializers.zeros_init()


class Dense(nn.Module):
    """An affine layer on the last axis; its bias starts at zero."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., in] to [..., features]."""
        kernel = self.param("kernel", zeros, (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        return x @ kernel + bias.reshape((1,) * (x.ndim - 1) + (-1,))


class Conv3x3(nn.Module):
    """A 3×3 convolution with zero padding ("same"): an image side of n becomes ceil(n / stride)."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, in] to [batch, ceil(height/stride), ceil(width/stride), features]."""
        channels = x.shape[-1]
        kernel = self.param("kernel", zeros, (3, 3, channels, self.features), jnp.float32)
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        patches = extract_patches(x, self.stride)
        return patches @ kernel.reshape(9 * channels, self.features) + bias[None, None, None, :]


def extract_patches(x: jax.Array, stride: int) -> jax.Array:
    """Returns the zero-padded 3×3 neighbourhoods of [b, h, w, c]: [b, ceil(h/stride), ceil(w/stride), 9c]."""
    height, width = x.shape[1], x.shape[2]
    rows, columns = -(-height // stride), -(-width // stride)
    # As "SAME" in XLA: the total padding is what the last window needs, the smaller half of it in front.
    pads = [(max((n - 1) * stride + 3 - size, 0)) for n, size in ((rows, height), (columns, width))]
    padded = jnp.pad(x, ((0, 0), *((p // 2, p - p // 2) for p in pads), (0, 0)))
    shifted = [
        padded[:, dy : dy + (rows - 1) * stride + 1 : stride, dx : dx + (columns - 1) * stride + 1 : stride]
        for dy in range(3)
        for dx in range(3)
    ]
    return jnp.concatenate(shifted, axis=-1)


class Mlp(nn.Module):
    """Hidden layers with an activation after each, then a linear layer."""

    hidden_sizes: tuple[int, ...]
    output_size: int

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> jax.Array:
        """Maps [batch, …] (flattened) to [batch, output_size]."""
        x = x.reshape(x.shape[0], -1)
        for size in self.hidden_sizes:
            x = activation(Dense(size)(x))
        return Dense(self.output_size)(x)


class ConvNet(nn.Module):
    """3×3 convolutions with an activation after each, a global average pool, and a linear layer."""

    hidden_size: int
    strides: tuple[int, ...]
    output_size: int

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, output_size]."""
        for stride in self.strides:
            x = activation(Conv3x3(self.hidden_size, stride)(x))
        return Dense(self.output_size)(x.mean(axis=(1, 2)))
