"""English prose that comes with Python: the language reference's topics, as `help()` shows them.

About 470 kB in 79 documents. Each document is cut in order into four consecutive parts, one per split, so that all
splits speak of everything and share no sentence. The text is that of the running Python, whose versions differ in
places.
"""

from __future__ import annotations

import functools

import numpy as np

from lopt.types import SPLITS
from task_generator.datasets.public import BYTE_VOCABULARY
from task_generator.datasets.source import TextSource

CUTS = (0.0, 0.76, 0.84, 0.92, 1.0)
FIRST_BYTE = BYTE_VOCABULARY - 256
"""Id of byte 0: the special ids come first."""
END_OF_DOCUMENT = 1


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


def encode_bytes(text: str) -> np.ndarray:
    """Returns the ids of the text's UTF-8 bytes, uint16 [n]."""
    return np.frombuffer(text.encode(), np.uint8).astype(np.uint16) + np.uint16(FIRST_BYTE)


def _load_bytes() -> dict[str, np.ndarray]:
    end = np.asarray([END_OF_DOCUMENT], np.uint16)
    return {
        split: np.concatenate([piece for text in texts for piece in (encode_bytes(text), end)])
        for split, texts in split_documents().items()
    }


ENGLISH_BYTES = TextSource(vocab_size=BYTE_VOCABULARY, num_tokens=470_000, load=_load_bytes)
