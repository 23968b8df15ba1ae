"""The English prose of `english` in sub-words: a byte-pair vocabulary trained on its training split.

Trained where it is first asked for, in 0.5 s on one core; tokens are kept in the workspace if there is one,
under a key that changes with the text and with the library, and vocabularies in memory. Naming the text, or
sampling configurations that name it, trains nothing: only loading does.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np

from task_generator.datasets.english import split_documents
from task_generator.datasets.prepared import TokenArrays, cached_tokens
from task_generator.datasets.source import TextSource
from task_generator.datasets.subwords import encode_subwords, train_vocabulary, trainer_version

NAME = "english_subwords"
VOCAB_SIZE = 8192


@functools.lru_cache(maxsize=1)
def english_vocabulary() -> str:
    """Returns the vocabulary, as the JSON that `tokenizers` reads."""
    return train_vocabulary(split_documents()["train"], VOCAB_SIZE)


def make_tokens() -> TokenArrays:
    """Returns the tokens of every split, uint16 [n]."""
    vocabulary = english_vocabulary()
    return {
        split: np.concatenate(list(encode_subwords(vocabulary, texts)))
        for split, texts in split_documents().items()
    }


def cache_key() -> str:
    """Returns what the tokens depend on, as 16 hexadecimal digits."""
    texts = "\0\0".join("\0".join(texts) for texts in split_documents().values())
    parts = f"{VOCAB_SIZE}\0{trainer_version()}\0{texts}"
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _load() -> TokenArrays:
    return cached_tokens(NAME, cache_key(), make_tokens)


ENGLISH_SUBWORDS = TextSource(vocab_size=VOCAB_SIZE, num_tokens=105_000, load=_load)
