"""Residual networks with bottleneck blocks and batch normalisation, in both orders of a block's operations."""

from __future__ import annotations

import flax.linen as nn
import jax

from task_generator.networks.patches import Conv, max_pool
from task_generator.nn import Activation, Dense
from task_generator.nn_normalization import BatchNorm

GROUP_STRIDES = (1, 2, 2, 2)
BOTTLENECK_DIVISOR = 4


class BlockV1(nn.Module):
    """Convolution, norm, activation; the last activation comes after the sum with the shortcut."""

    channels: int
    stride: int = 1
    use_projection: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> jax.Array:
        """Maps [batch, height, width, in] to [batch, ceil(height/stride), ceil(width/stride), channels]."""
        shortcut = x
        if self.use_projection:
            shortcut = Conv(self.channels, 1, self.stride, name="shortcut_conv")(x)
            shortcut = BatchNorm(name="shortcut_norm")(shortcut)
        for i, (features, size, stride) in enumerate(_bottleneck(self.channels, self.stride)):
            x = BatchNorm(name=f"norm_{i}")(Conv(features, size, stride, name=f"conv_{i}")(x))
            x = activation(x) if i < 2 else x
        return activation(x + shortcut)


class BlockV2(nn.Module):
    """Norm, activation, convolution ("pre-activation"): the path along the shortcuts stays linear."""

    channels: int
    stride: int = 1
    use_projection: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> jax.Array:
        """Maps [batch, height, width, in] to [batch, ceil(height/stride), ceil(width/stride), channels]."""
        shortcut = x
        for i, (features, size, stride) in enumerate(_bottleneck(self.channels, self.stride)):
            x = activation(BatchNorm(name=f"norm_{i}")(x))
            if i == 0 and self.use_projection:
                shortcut = Conv(self.channels, 1, self.stride, name="shortcut_conv")(x)
            x = Conv(features, size, stride, name=f"conv_{i}")(x)
        return x + shortcut


BLOCKS: dict[str, type[BlockV1] | type[BlockV2]] = {"v1": BlockV1, "v2": BlockV2}


class ResNet(nn.Module):
    """A stem, four groups of blocks, a global average pool and a linear layer."""

    version: str
    blocks_per_group: tuple[int, ...]
    channels_per_group: tuple[int, ...]
    initial_conv_channels: int
    initial_conv_kernel_size: int
    initial_conv_stride: int
    max_pool: bool
    output_size: int

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, output_size]."""
        stem = (self.initial_conv_channels, self.initial_conv_kernel_size, self.initial_conv_stride)
        x = Conv(*stem, name="initial_conv")(x)
        if self.version == "v1":
            x = activation(BatchNorm(name="initial_norm")(x))
        if self.max_pool:
            x = max_pool(x)
        block = BLOCKS[self.version]
        groups = zip(self.blocks_per_group, self.channels_per_group, GROUP_STRIDES, strict=True)
        for i, (count, channels, stride) in enumerate(groups):
            x = block(channels, stride, use_projection=True, name=f"group_{i}_block_0")(x, activation)
            for k in range(1, count):
                x = block(channels, name=f"group_{i}_block_{k}")(x, activation)
        if self.version == "v2":
            x = activation(BatchNorm(name="final_norm")(x))
        return Dense(self.output_size, name="logits")(x.mean(axis=(1, 2)))


def _bottleneck(channels: int, stride: int) -> tuple[tuple[int, int, int], ...]:
    """Returns (features, kernel size, stride) of a block's convolutions."""
    narrow = channels // BOTTLENECK_DIVISOR
    return (narrow, 1, 1), (narrow, 3, stride), (channels, 1, 1)
