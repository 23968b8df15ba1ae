"""Texts as streams of tokens; a batch is a set of windows, drawn in-graph.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3.6–7. Deviations: windows start anywhere in the stream of documents
(the release takes the beginning of each document and pads it), so there is no padding to mask; a truncated
vocabulary maps every id that is out of it, `id ≥ vocab_size`, to 1 + id mod (vocab_size − 1) (the release's `>`
leaves one id outside).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp

from lopt.registry import lookup
from lopt.types import SPLITS, Split
from task_generator.datasets.english import ENGLISH_BYTES
from task_generator.datasets.english_subwords import ENGLISH_SUBWORDS
from task_generator.datasets.placement import check_fits_device
from task_generator.datasets.prepared import prepared_count
from task_generator.datasets.public import PUBLIC_TEXTS
from task_generator.datasets.source import TextSource

EMBEDDED_TEXTS: dict[str, TextSource] = {
    "english_bytes": ENGLISH_BYTES,
    "english_subwords": ENGLISH_SUBWORDS,
}

TEXTS: dict[str, TextSource] = {**EMBEDDED_TEXTS, **PUBLIC_TEXTS}

if TYPE_CHECKING:
    TextName = str
else:  # the names are the registry's keys, so that a new entry is one line
    TextName = Literal[tuple(TEXTS)]


class TokenBatch(NamedTuple):
    """Windows of a text: the model reads `inputs` and predicts `targets`, the same one token later."""

    inputs: jax.Array  # int32 [batch, length]
    targets: jax.Array  # int32 [batch, length]


@dataclasses.dataclass(frozen=True)
class TextDataset:
    """A text's token streams, on the device."""

    train: jax.Array  # uint16 [n]
    inner_valid: jax.Array
    outer_valid: jax.Array
    test: jax.Array
    vocab_size: int

    def batch(
        self, key: jax.Array, split: Split, batch_size: int, length: int, vocab_size: int | None = None
    ) -> TokenBatch:
        """Draws `batch_size` windows of `length` tokens with replacement. The same key gives the same batch.

        Args:
          key: What is drawn.
          split: Where from.
          batch_size: Windows.
          length: Tokens per window; the split must be longer.
          vocab_size: Truncates the vocabulary; None keeps all of it.
        """
        tokens: jax.Array = getattr(self, split)
        count = tokens.shape[0] - length
        start = (jax.random.bits(key, (batch_size,), jnp.uint32) % jnp.uint32(count)).astype(jnp.int32)
        index = start[:, None] + jnp.arange(length + 1, dtype=jnp.int32)[None, :]
        window = tokens.at[index].get(mode="promise_in_bounds").astype(jnp.int32)
        if vocab_size is not None and vocab_size < self.vocab_size:
            window = truncate_vocabulary(window, vocab_size)
        return TokenBatch(window[:, :-1], window[:, 1:])


jax.tree_util.register_dataclass(TextDataset, data_fields=list(SPLITS), meta_fields=["vocab_size"])


def truncate_vocabulary(tokens: jax.Array, vocab_size: int) -> jax.Array:
    """Returns the ids with those that are `vocab_size` or more folded into 1, …, vocab_size − 1."""
    return jnp.where(tokens < vocab_size, tokens, 1 + tokens % (vocab_size - 1))


def load_text(name: str, min_length: int = 1) -> TextDataset:
    """Returns the text `name`.

    Args:
      name: Of an embedded or a prepared text.
      min_length: Every split must be longer than a window of this many tokens.

    Raises:
      UnknownNameError: If there is no such text.
      DatasetNotPreparedError: If it has to be prepared first.
      DatasetTooLargeError: If it does not fit the device.
      ValueError: If a split is too short.
    """
    text = whole_text(name)
    for split in SPLITS:
        count = getattr(text, split).shape[0]
        if count <= min_length:
            raise ValueError(
                f"a window of {min_length} tokens must fit into every split of {name!r}, got {count} tokens in "
                f"{split!r}. Shorten the sequence or prepare more of the text."
            )
    return text


@functools.lru_cache(maxsize=4)
def whole_text(name: str) -> TextDataset:
    """Returns the text: one copy on the device, whatever the lengths that tasks ask for."""
    source = lookup(TEXTS, name, kind="text")
    check_fits_device(
        f"text {name!r}",
        2 * prepared_count(name, source.num_tokens),
        f"Prepare fewer documents: `keirin data prepare {name} --max-examples N`.",
    )
    return TextDataset(
        **{split: jnp.asarray(tokens, jnp.uint16) for split, tokens in source.load().items()},
        vocab_size=source.vocab_size,
    )
