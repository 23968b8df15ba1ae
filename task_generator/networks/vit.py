"""Vision transformers: patches, a class token, learned positions, pre-norm encoder layers."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from task_generator.networks.patches import PatchEmbedding
from task_generator.nn import Activation, Dense, zeros
from task_generator.nn_normalization import LayerNorm

EPSILON = 1e-6


class EncoderLayer(nn.Module):
    """Self-attention and a two-layer network, each on a normalised input and added to it."""

    num_heads: int
    mlp_dim: int
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> jax.Array:
        """Maps [batch, tokens, hidden] to the same shape."""
        dropout = lambda y: nn.Dropout(self.dropout_rate, deterministic=False)(y)
        attention = nn.MultiHeadDotProductAttention(
            self.num_heads,
            broadcast_dropout=False,
            dropout_rate=self.attention_dropout_rate,
            deterministic=False,
            name="attention",
        )
        x = x + dropout(attention(LayerNorm(EPSILON, name="attention_norm")(x)))
        y = LayerNorm(EPSILON, name="mlp_norm")(x)
        y = dropout(activation(Dense(self.mlp_dim, name="mlp_in")(y)))
        return x + dropout(Dense(x.shape[-1], name="mlp_out")(y))


class VisionTransformer(nn.Module):
    """Classifies by what the class token holds after the last layer."""

    patch_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    dropout_rate: float
    attention_dropout_rate: float
    output_size: int

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> jax.Array:
        """Maps [batch, side, side, channels] to [batch, output_size]."""
        x = PatchEmbedding(self.hidden_size, self.patch_size, name="embedding")(x)
        token = self.param("class_token", zeros, (1, 1, self.hidden_size), jnp.float32)
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.hidden_size)), x], axis=1)
        x = x + self.param("position_embedding", zeros, (1, *x.shape[1:]), jnp.float32)
        x = nn.Dropout(self.dropout_rate, deterministic=False)(x)
        sizes = (self.num_heads, self.mlp_dim, self.dropout_rate, self.attention_dropout_rate)
        for i in range(self.num_layers):
            x = EncoderLayer(*sizes, name=f"layer_{i}")(x, activation)
        return Dense(self.output_size, name="head")(LayerNorm(EPSILON, name="encoder_norm")(x[:, 0]))
