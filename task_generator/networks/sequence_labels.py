"""Recurrent networks that label a whole sequence, or each of its positions.

The cells are those of the language models (`networks.language`); a sequence starts from a state of zeros.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax

from task_generator.networks.language import CELLS, CellName, Embedding
from task_generator.nn import Activation, Dense

Pooling = Literal["last", "mean"]


class SequenceClassifier(nn.Module):
    """Embedding, one recurrent layer, its last or its mean state, a linear layer."""

    cell: CellName
    hidden_size: int
    embed_size: int
    vocab_size: int
    num_classes: int
    pooling: Pooling

    @nn.compact
    def __call__(self, tokens: jax.Array, activation: Activation) -> jax.Array:
        """Maps tokens [batch, length] to logits [batch, classes]. Only "vanilla" uses the activation."""
        embedded = Embedding(self.vocab_size, self.embed_size, name="embedding")(tokens.T)
        states = CELLS[self.cell](self.hidden_size, False, name=self.cell)(embedded, activation)
        return Dense(self.num_classes, name="output")(
            states[-1] if self.pooling == "last" else states.mean(axis=0)
        )


class SequenceTagger(nn.Module):
    """One recurrent layer and a linear one: a logit per position, from what came up to it."""

    cell: CellName
    hidden_size: int

    @nn.compact
    def __call__(self, inputs: jax.Array, activation: Activation) -> jax.Array:
        """Maps [batch, length, features] to logits [batch, length]. Only "vanilla" uses the activation."""
        states = CELLS[self.cell](self.hidden_size, False, name=self.cell)(
            inputs.transpose(1, 0, 2), activation
        )
        return Dense(1, name="output")(states)[..., 0].T
