"""MLP-Mixer: fully connected layers along the tokens, then along the channels, of an image's patches."""

from __future__ import annotations

import flax.linen as nn
import jax

from task_generator.networks.patches import PatchEmbedding
from task_generator.nn import Activation, Dense
from task_generator.nn_normalization import LayerNorm

EPSILON = 1e-6


class MixerBlock(nn.Module):
    """Mixes tokens, then channels; each on a normalised input and added to it."""

    tokens_mlp_dim: int
    channels_mlp_dim: int

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> jax.Array:
        """Maps [batch, tokens, channels] to the same shape."""
        y = LayerNorm(EPSILON, name="token_norm")(x).swapaxes(1, 2)
        y = activation(Dense(self.tokens_mlp_dim, name="token_in")(y))
        x = x + Dense(x.shape[1], name="token_out")(y).swapaxes(1, 2)
        y = LayerNorm(EPSILON, name="channel_norm")(x)
        y = activation(Dense(self.channels_mlp_dim, name="channel_in")(y))
        return x + Dense(x.shape[2], name="channel_out")(y)


class MlpMixer(nn.Module):
    """Classifies by the mean of the tokens after the last block."""

    patch_size: int
    hidden_dim: int
    num_blocks: int
    tokens_mlp_dim: int
    channels_mlp_dim: int
    output_size: int

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> jax.Array:
        """Maps [batch, side, side, channels] to [batch, output_size]."""
        x = PatchEmbedding(self.hidden_dim, self.patch_size, name="stem")(x)
        for i in range(self.num_blocks):
            x = MixerBlock(self.tokens_mlp_dim, self.channels_mlp_dim, name=f"block_{i}")(x, activation)
        x = LayerNorm(EPSILON, name="head_norm")(x).mean(axis=1)
        return Dense(self.output_size, name="head")(x)
