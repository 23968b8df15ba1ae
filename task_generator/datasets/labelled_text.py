"""Windows of texts, labelled with the document that they come from.

Stands for the labelled texts of Metz et al. 2020 (arXiv:2009.11243) and Almeida et al. 2021 (arXiv:2106.00958,
App. H: the Stanford Sentiment Treebank), which have to be downloaded. The classes are the longest of the embedded
documents, drawn uniformly, so that a guess that knows nothing costs ln(classes).

A document's topics change from its beginning to its end, and trained on the one a network is worse than a guess at
the other. So each is cut into as many equal stretches (16 at most) as leave room for a window, and each stretch in
order into a block per split, in the shares of `datasets.english`. A window lies in one block: splits share nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lopt.registry import lookup
from lopt.types import SPLITS, Split
from task_generator.datasets.byte_tokens import END_OF_DOCUMENT
from task_generator.datasets.english import CUTS, ENGLISH_BYTES, documents
from task_generator.datasets.english_subwords import ENGLISH_SUBWORDS
from task_generator.datasets.source import TextSource

LABELLED_TEXTS: dict[str, TextSource] = {
    "english_bytes": ENGLISH_BYTES,
    "english_subwords": ENGLISH_SUBWORDS,
}
"""Texts whose splits all hold parts of the same documents, in the order of `english.documents`."""

MAX_STRETCHES = 16

if TYPE_CHECKING:
    LabelledTextName = str
else:  # the names are the registry's keys, so that a new entry is one line
    LabelledTextName = Literal[tuple(LABELLED_TEXTS)]


class LabelledTokens(NamedTuple):
    """Windows of texts."""

    tokens: jax.Array  # int32 [batch, length]
    labels: jax.Array  # int32 [batch]


class LabelledSplit(NamedTuple):
    """The blocks of one split."""

    tokens: jax.Array  # uint16 [n]
    starts: jax.Array  # int32 [classes, blocks]: where each begins
    lengths: jax.Array  # int32 [classes, blocks]: its tokens


@dataclasses.dataclass(frozen=True)
class LabelledTextDataset:
    """Labelled texts, on the device."""

    train: LabelledSplit
    inner_valid: LabelledSplit
    outer_valid: LabelledSplit
    test: LabelledSplit

    def batch(self, key: jax.Array, split: Split, batch_size: int, length: int) -> LabelledTokens:
        """Draws for each of `batch_size` windows of `length` tokens a document, a block and a place, uniformly.

        The same key gives the same batch. Every block must have `length` tokens.
        """
        part: LabelledSplit = getattr(self, split)
        num_classes, num_blocks = part.starts.shape
        document, block, place = jax.random.bits(key, (3, batch_size), jnp.uint32)
        labels = (document % jnp.uint32(num_classes)).astype(jnp.int32)
        which = labels * num_blocks + (block % jnp.uint32(num_blocks)).astype(jnp.int32)
        starts, lengths = (
            x.ravel().at[which].get(mode="promise_in_bounds") for x in (part.starts, part.lengths)
        )
        offsets = (place % (lengths - (length - 1)).astype(jnp.uint32)).astype(jnp.int32)
        index = (starts + offsets)[:, None] + jnp.arange(length, dtype=jnp.int32)[None, :]
        return LabelledTokens(part.tokens.at[index].get(mode="promise_in_bounds").astype(jnp.int32), labels)


jax.tree_util.register_dataclass(LabelledTextDataset, data_fields=list(SPLITS), meta_fields=[])


@functools.lru_cache(maxsize=4)
def load_labelled_text(name: str, num_classes: int, min_length: int = 1) -> LabelledTextDataset:
    """Returns windows of the `num_classes` longest documents of text `name`; label 0 is the longest.

    Args:
      name: Of a text in `LABELLED_TEXTS`.
      num_classes: How many documents.
      min_length: Blocks have so many tokens at least.

    Raises:
      UnknownNameError: If there is no such text.
      ValueError: If a document is too short, or there are too few documents.
    """
    chosen = longest_documents(num_classes)
    streams = lookup(LABELLED_TEXTS, name, kind="labelled text").load()
    parts = [_documents(streams[split]) for split in SPLITS]
    whole = [np.concatenate([part[i] for part in parts]) for i in chosen]
    shortest = min(len(document) for document in whole)
    fitting = [n for n in range(1, MAX_STRETCHES + 1) if _shortest_block(shortest, n) >= min_length]
    if not fitting:
        share = _shortest_block(shortest, 1)
        raise ValueError(
            f"a window of {min_length} tokens must fit into every split of a document, but the shortest of "
            f"{num_classes} in {name!r} has {share} in one. Shorten the sequence or lower the number of classes."
        )
    bounds = [block_bounds(len(document), max(fitting)) for document in whole]
    return LabelledTextDataset(
        *(_select(whole, [document[:, i] for document in bounds]) for i in range(len(SPLITS)))
    )


def longest_documents(count: int) -> tuple[int, ...]:
    """Returns the indices of the longest documents in `english.documents`, the longest first.

    Raises:
      ValueError: If there are fewer.
    """
    texts = [text for _, text in documents()]
    if count > len(texts):
        raise ValueError(
            f"there are {len(texts)} documents to tell apart, got num_classes={count}. Lower it."
        )
    return tuple(sorted(range(len(texts)), key=lambda i: -len(texts[i]))[:count])


def block_bounds(length: int, num_stretches: int) -> np.ndarray:
    """Returns where each stretch's block of each split begins and ends, integer [stretches, splits, 2].

    Together they are the numbers 0, …, length − 1, each once.
    """
    stretches = np.arange(num_stretches)[:, None] + np.asarray(CUTS)[None, :]
    cuts = np.floor(stretches * (length / num_stretches) + 1e-6).astype(int)
    return np.stack([cuts[:, :-1], cuts[:, 1:]], axis=-1)


def _shortest_block(length: int, num_stretches: int) -> int:
    bounds = block_bounds(length, num_stretches)
    return int((bounds[..., 1] - bounds[..., 0]).min())


def _documents(stream: np.ndarray) -> list[np.ndarray]:
    """Cuts a stream of tokens into documents, without the token that ends them."""
    ends = np.flatnonzero(stream == END_OF_DOCUMENT)
    return [part[:-1] for part in np.split(stream, ends + 1)[:-1]]


def _select(whole: list[np.ndarray], bounds: list[np.ndarray]) -> LabelledSplit:
    """Returns the blocks that lie within `bounds`, one array [blocks, 2] per document."""
    blocks = [
        document[start:stop] for document, pairs in zip(whole, bounds, strict=True) for start, stop in pairs
    ]
    lengths = np.array([len(block) for block in blocks])
    shape = (len(whole), -1)
    return LabelledSplit(
        jnp.asarray(np.concatenate(blocks), jnp.uint16),
        jnp.asarray((np.cumsum(lengths) - lengths).reshape(shape), jnp.int32),
        jnp.asarray(lengths.reshape(shape), jnp.int32),
    )
