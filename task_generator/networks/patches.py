"""Convolutions and pools as slices and matrix products, and the patches of a transformer's or mixer's stem.

As in `task_generator.nn`: a convolution vmapped over its kernel is slow on CPUs. Windows are gathered along one
axis and then along the other, k + k slices instead of k².
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from task_generator.nn import zeros


class Conv(nn.Module):
    """A convolution with an odd square kernel and zero padding ("same"), without a bias."""

    features: int
    kernel_size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, in] to [batch, ceil(height/stride), ceil(width/stride), features]."""
        size, channels = self.kernel_size, x.shape[-1]
        kernel = self.param("kernel", zeros, (size, size, channels, self.features), jnp.float32)
        return windows(x, size, self.stride) @ kernel.reshape(size * size * channels, self.features)


def windows(x: jax.Array, size: int, stride: int) -> jax.Array:
    """Returns the zero-padded size² windows of [b, h, w, c]: [b, ceil(h/stride), ceil(w/stride), size²·c]."""
    for axis in (2, 1):  # so that channels run fastest, then columns, then rows, as in a kernel
        x = jnp.concatenate(_shifted(x, axis, size, stride, 0.0), axis=-1)
    return x


def max_pool(x: jax.Array, size: int = 3, stride: int = 2) -> jax.Array:
    """Returns the largest value of each size² neighbourhood: [b, ceil(h/stride), ceil(w/stride), c].

    Not `reduce_window`, whose gradient XLA runs one window at a time on CPUs. Tied pixels share the gradient.
    """
    for axis in (1, 2):
        first, *others = _shifted(x, axis, size, stride, -jnp.inf)
        for other in others:
            first = jnp.maximum(first, other)
        x = first
    return x


def _shifted(x: jax.Array, axis: int, size: int, stride: int, padding: float) -> list[jax.Array]:
    """Returns what each of `size` taps along `axis` sees, padded as "SAME" in XLA: the smaller half in front."""
    if size == 1:
        return [lax.slice_in_dim(x, 0, None, stride, axis)]
    count = -(-x.shape[axis] // stride)
    pad = max((count - 1) * stride + size - x.shape[axis], 0)
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (pad // 2, pad - pad // 2, 0)
    padded = lax.pad(x, jnp.asarray(padding, x.dtype), config)
    return [
        lax.slice_in_dim(padded, tap, tap + (count - 1) * stride + 1, stride, axis) for tap in range(size)
    ]


class PatchEmbedding(nn.Module):
    """An affine map of each non-overlapping patch; rows and columns that fill no patch are left out.

    The same as a convolution with kernel and stride `patch_size` and padding "valid".
    """

    features: int
    patch_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, side, side, channels] to [batch, (side // patch_size)², features]."""
        size, (batch, side, _, channels) = self.patch_size, x.shape
        rows = side // size
        kernel = self.param("kernel", zeros, (size, size, channels, self.features), jnp.float32)
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        cropped = x[:, : rows * size, : rows * size].reshape(batch, rows, size, rows, size, channels)
        flat = cropped.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * rows, -1)
        return flat @ kernel.reshape(-1, self.features) + bias[None, None, :]
