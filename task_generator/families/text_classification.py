"""Text classification with a recurrent network: which of several documents a window of text comes from.

[1] Metz et al. 2020 (arXiv:2009.11243), §3.2, whose tasks are TaskSet's (arXiv:2002.11887), among them text
    classification with recurrent networks. [2] Almeida et al. 2021 (arXiv:2106.00958), App. H: text + RNN (simple,
    LSTM or GRU) on a set of labelled sentences.

Deviations: the data are windows of embedded documents (`datasets.labelled_text`), of one length, so that nothing is
padded; the ranges are of the kind of Metz et al. 2022, App. C.3.6, the papers printing none.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.types import Dynamic, PyTree, Scalar, Split
from task_generator.datasets.labelled_text import (
    LABELLED_TEXTS,
    LabelledTextDataset,
    LabelledTextName,
    LabelledTokens,
    load_labelled_text,
)
from task_generator.distributions import Categorical, Distribution, LogUniformInt, UniformInt
from task_generator.families.base import cap, gradient_cost
from task_generator.families.recurrent import RecurrentConfig, recurrent_prior
from task_generator.losses import cross_entropy
from task_generator.networks.sequence_labels import Pooling, SequenceClassifier


class TextClassificationConfig(RecurrentConfig):
    """Embedding, a recurrent layer of `hidden_size` units, its last or mean state, a linear layer."""

    family: Literal["text_classification"] = "text_classification"
    dataset: LabelledTextName = Field(description="Name of a labelled text.")
    num_classes: int = Field(ge=2, le=79, description="Documents to tell apart, the longest.")
    sequence_length: int = Field(ge=1, le=4096, description="Tokens per example.")
    embed_size: int = Field(ge=1, le=4096, description="Features per token.")
    pooling: Pooling = Field(description="Which state is classified: the last, or the mean of all.")

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the ranges; of sixteen documents, the shortest has a hundred sub-words in every split."""
        return {
            "dataset": Categorical(values=tuple(LABELLED_TEXTS)),
            "num_classes": UniformInt(low=2, high=16),
            "sequence_length": LogUniformInt(low=8, high=64),
            "embed_size": LogUniformInt(low=8, high=128),
            "pooling": Categorical(values=("last", "mean")),
            **recurrent_prior(),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns a GRU of 16 units that tells four documents apart by 32 bytes."""
        return cls(
            dataset="english_bytes",
            num_classes=4,
            sequence_length=32,
            embed_size=16,
            pooling="mean",
            cell="gru",
            hidden_size=16,
            batch_size=16,
        )

    @property
    def vocab_size(self) -> int:
        """Of the text's tokens."""
        return LABELLED_TEXTS[self.dataset].vocab_size

    def network(self) -> SequenceClassifier:
        """Returns the module."""
        return SequenceClassifier(
            self.cell, self.hidden_size, self.embed_size, self.vocab_size, self.num_classes, self.pooling
        )

    def example_inputs(self) -> jax.ShapeDtypeStruct:
        """Returns the shape of one window."""
        return jax.ShapeDtypeStruct((1, self.sequence_length), jnp.int32)

    def load_data(self) -> LabelledTextDataset:
        """Returns the documents."""
        return load_labelled_text(self.dataset, self.num_classes, self.sequence_length)

    def draw(self, data: PyTree, key: jax.Array, split: Split) -> LabelledTokens:
        """Returns tokens [batch, length] and labels [batch]."""
        texts: LabelledTextDataset = data
        return texts.batch(key, split, self.batch_size, self.sequence_length)

    def inputs(self, batch: LabelledTokens, dynamic: Dynamic) -> jax.Array:
        """Returns the tokens."""
        del dynamic
        return batch.tokens

    def loss(self, outputs: jax.Array, batch: LabelledTokens, dynamic: Dynamic) -> Scalar:
        """Returns the mean cross-entropy of logits [batch, classes], in nats."""
        del dynamic
        return cross_entropy(outputs, batch.labels)

    def normalize(self, loss: Scalar, data: PyTree, dynamic: Dynamic) -> Scalar:
        """Returns loss / ln(num_classes), so that 1 is chance level, capped."""
        del data, dynamic
        return cap(loss / math.log(self.num_classes))

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        output = self.hidden_size * self.num_classes
        num_params = self.vocab_size * self.embed_size + self.recurrent_params(self.embed_size)
        products = self.sequence_length * self.recurrent_products(self.embed_size) + output
        return gradient_cost(
            num_params + output + self.num_classes,
            products,
            self.batch_size,
            inputs_per_example=self.sequence_length,
            values_per_example=self.sequence_length * self.recurrent_values(self.embed_size),
            rows_per_example=self.sequence_length,
            depth=self.sequence_length + 2,
        )

    def label(self) -> str:
        """Returns e.g. "text_classification gru 16/16 mean · 4 of english_bytes × 32 · batch 16"."""
        parts = (
            f"text_classification {self.cell} {self.embed_size}/{self.hidden_size} {self.pooling}",
            f"{self.num_classes} of {self.dataset} × {self.sequence_length}",
            f"batch {self.batch_size}",
            self.overrides_label(),
        )
        return " · ".join(part for part in parts if part)
