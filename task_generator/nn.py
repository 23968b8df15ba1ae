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

from task_generator.nn_normalization import NormalizationName, normalize

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


def activate(x: jax.Array, activation: Activation, *, prelu: bool) -> jax.Array:
    """Applies `activation`, or where `prelu` a leaky relu of its own, whose slope is a parameter."""
    return nn.PReLU()(x) if prelu else activation(x)


class Mlp(nn.Module):
    """Hidden layers, then a linear layer.

    A hidden layer is: linear, normalisation, dropout (the rng "dropout"), activation.
    """

    hidden_sizes: tuple[int, ...]
    output_size: int
    normalization: NormalizationName = "none"
    dropout_rate: float = 0.0
    prelu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> jax.Array:
        """Maps [batch, …] (flattened) to [batch, output_size]."""
        x = x.reshape(x.shape[0], -1)
        for size in self.hidden_sizes:
            x = normalize(Dense(size)(x), self.normalization)
            x = nn.Dropout(self.dropout_rate, deterministic=False)(x)
            x = activate(x, activation, prelu=self.prelu)
        return Dense(self.output_size)(x)


class ConvNet(nn.Module):
    """3×3 convolutions, each followed by activation and normalisation, a global average pool, a linear layer."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    output_size: int
    normalization: NormalizationName = "none"
    prelu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, output_size]."""
        for features, stride in zip(self.channels, self.strides, strict=True):
            x = activate(Conv3x3(features, stride)(x), activation, prelu=self.prelu)
            x = normalize(x, self.normalization)
        return Dense(self.output_size)(x.mean(axis=(1, 2)))
