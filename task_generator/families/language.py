"""What language models share: their fields, their data, their loss.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3.6–7. Deviations: the loss is normalised by ln(vocabulary size), so
that 1 is chance (the release shifts and stretches: 10·(L − ln(V/5)) / ln V); padding is left out of the loss where
it is to be predicted (the release: where it is read). Towards the text and against the release: bytes keep their
whole vocabulary, and the sampled size truncates sub-words only.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from pydantic import Field, ValidationInfo, field_validator, model_validator

from lopt.types import Dynamic, PyTree, Scalar, Split
from task_generator.datasets.byte_tokens import PADDING
from task_generator.datasets.public import BYTE_VOCABULARY
from task_generator.datasets.text import EMBEDDED_TEXTS, TEXTS, TextDataset, TextName, TokenBatch, load_text
from task_generator.distributions import Categorical, Distribution, LogUniformInt
from task_generator.families.base import cap
from task_generator.families.network import NetworkConfig

MAX_BATCH_LOGITS = 2**28
"""Refuses logits of more than 1 GiB. The largest that the papers evaluate on have 1.0."""


class LanguageConfig(NetworkConfig):
    """The fields of a network that predicts the next token of a text."""

    default_only: ClassVar[tuple[str, ...]] = ()
    """Fields that no prior draws: a sampled task has their defaults."""

    dataset: TextName = Field(description="Name of a text.")
    sequence_length: int = Field(ge=1, le=16384, description="Tokens per example.")
    vocab_size: int | None = Field(
        None,
        ge=3,
        description="Truncates the vocabulary to so many sub-words; None keeps all. Bytes keep all.",
    )

    @field_validator("vocab_size")
    @classmethod
    def _keep_what_truncates(cls, value: int | None, info: ValidationInfo) -> int | None:
        """Has one form for a whole vocabulary, so that the same task has one fingerprint."""
        whole = TEXTS[info.data["dataset"]].vocab_size if "dataset" in info.data else math.inf
        return value if value is not None and whole > max(value, BYTE_VOCABULARY) else None

    @model_validator(mode="after")
    def _check_logits_fit(self) -> Self:
        logits = self.batch_size * self.sequence_length * self.num_tokens
        if logits > MAX_BATCH_LOGITS:
            raise ValueError(
                f"a batch may have at most {MAX_BATCH_LOGITS} logits, got {logits} from batch_size="
                f"{self.batch_size}, sequence_length={self.sequence_length} and a vocabulary of {self.num_tokens}. "
                "Lower one of them."
            )
        return self

    @property
    def num_tokens(self) -> int:
        """Size of the vocabulary."""
        return self.vocab_size or TEXTS[self.dataset].vocab_size

    def example_inputs(self) -> jax.ShapeDtypeStruct:
        """Returns the shape of one window."""
        return jax.ShapeDtypeStruct((1, self.sequence_length), jnp.int32)

    def load_data(self) -> TextDataset:
        """Returns the text."""
        return load_text(self.dataset, self.sequence_length)

    def draw(self, data: PyTree, key: jax.Array, split: Split) -> TokenBatch:
        """Returns inputs and targets, int32 [batch, length] each."""
        text: TextDataset = data
        return text.batch(key, split, self.batch_size, self.sequence_length, self.vocab_size)

    def inputs(self, batch: TokenBatch, dynamic: Dynamic) -> jax.Array:
        """Returns what the model reads."""
        del dynamic
        return batch.inputs

    def loss(self, outputs: jax.Array, batch: TokenBatch, dynamic: Dynamic) -> Scalar:
        """Returns the mean cross-entropy per token of logits [batch, length, vocab], in nats."""
        del dynamic
        return token_cross_entropy(outputs, batch.targets)

    def normalize(self, loss: Scalar, data: PyTree, dynamic: Dynamic) -> Scalar:
        """Returns loss / ln(vocabulary size), so that 1 is chance level, capped."""
        del data, dynamic
        return cap(loss / math.log(self.num_tokens))

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether sampling could give the fields that are not drawn as such."""
        has_defaults = all(getattr(self, name) == default_of(self, name) for name in self.default_only)
        # A whole vocabulary, `vocab_size` None, is what a draw of at least its size leaves.
        return super().overrides_could_be_sampled() and has_defaults and self.num_tokens <= SUBWORDS_KEPT.high

    def overrides_label(self) -> str:
        """Returns what is not at its default, in a few words."""
        names = ("activation", "initializer", "init_scale")
        changed = [getattr(self, name) for name in names if getattr(self, name) != default_of(self, name)]
        return " · ".join(map(str, changed))

    def data_label(self) -> str:
        """Returns e.g. "english_subwords/1000 × 32 · batch 16", and what is overridden."""
        text = self.dataset if self.vocab_size is None else f"{self.dataset}/{self.vocab_size}"
        parts = (f"{text} × {self.sequence_length}", f"batch {self.batch_size}", self.overrides_label())
        return " · ".join(part for part in parts if part)


def default_of(config: LanguageConfig, name: str) -> Any:
    """Returns the default of a field."""
    return type(config).model_fields[name].default


def token_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean of −log softmax(logits [..., vocab]) at targets [...] over those that are not padding.

    float32; zero where all is padding. Selects by comparison, which fuses: a gather's gradient would be a scatter
    into an array as large as the logits.
    """
    logits = logits.astype(jnp.float32)
    ids = jnp.arange(logits.shape[-1], dtype=targets.dtype).reshape((1,) * targets.ndim + (-1,))
    chosen = jnp.sum(jnp.where(targets[..., None] == ids, logits, 0.0), axis=-1)
    counts = (targets != PADDING).astype(jnp.float32)
    losses = jax.nn.logsumexp(logits, axis=-1) - chosen
    return jnp.sum(jnp.where(counts > 0, losses, 0.0)) / jnp.maximum(jnp.sum(counts), 1.0)


class _SubwordsKept(LogUniformInt):
    """C.3.6–7's size of a truncated vocabulary. None stands for any size that truncates nothing."""

    def contains(self, value: Any) -> bool:
        """Returns whether a configuration's `vocab_size` could come of `sample`."""
        return value is None or super().contains(value)


SUBWORDS_KEPT = _SubwordsKept(low=100, high=10_000)


def language_prior() -> dict[str, Distribution]:
    """Returns the priors of batch size, length, text and vocabulary that C.3.6 and C.3.7 share.

    The paper draws from LM1B and Wikipedia, which have to be downloaded; this prior, from the embedded texts. A
    `TaskDistribution` puts its own in their place.
    """
    return {
        "batch_size": LogUniformInt(low=4, high=512),
        "sequence_length": LogUniformInt(low=4, high=512),
        "dataset": Categorical(values=tuple(EMBEDDED_TEXTS)),
        "vocab_size": SUBWORDS_KEPT,
    }
