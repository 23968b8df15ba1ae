"""English prose that comes with Python: the language reference's topics, as `help()` shows them.

About 470 kB in 79 documents. Each document is cut in order into four consecutive parts, one per split, so that all
splits speak of everything and share no sentence. The text is that of the running Python, whose versions differ in
places.
"""

from __future__ import annotations

import functools

import numpy as np

from lopt.types import SPLITS
from task_generator.datasets.byte_tokens import encode_bytes
from task_generator.datasets.public import BYTE_VOCABULARY
from task_generator.datasets.source import TextSource

CUTS = (0.0, 0.76, 0.84, 0.92, 1.0)


@functools.lru_cache(maxsize=1)
def documents() -> tuple[tuple[str, str], ...]:
    """Returns (name, text) of every document, in alphabetical order."""
    from pydoc_data.topics import topics  # 0.5 MB: only where it is needed

    return tuple(sorted(topics.items()))


@functools.lru_cache(maxsize=1)
def split_documents() -> dict[str, tuple[str, ...]]:
    """Returns, per split, the part of every document that belongs to it."""
    parts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for _, text in documents():
        for split, low, high in zip(SPLITS, CUTS[:-1], CUTS[1:], strict=True):
            parts[split].append(text[round(low * len(text)) : round(high * len(text))])
    return {split: tuple(texts) for split, texts in parts.items()}


def _load_bytes() -> dict[str, np.ndarray]:
    return {
        split: np.concatenate([encode_bytes(text) for text in texts])
        for split, texts in split_documents().items()
    }


ENGLISH_BYTES = TextSource(vocab_size=BYTE_VOCABULARY, num_tokens=470_000, load=_load_bytes)
