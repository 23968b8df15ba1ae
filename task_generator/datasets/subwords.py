"""Byte-pair vocabularies, trained here on given documents by Hugging Face's `tokenizers`; nothing is downloaded.

Byte-level, so that no text has an unknown symbol and decoding gives the text back exactly. Ids 0 padding, 1 end of
document, 2 unknown, then the 256 bytes, then the merges in the order they were learned: the most frequent pairs
first, so that cutting the vocabulary off (`truncate_vocabulary`) folds the rarer ones. Training is deterministic:
there is no randomness in it, ties go to the lower ids, and the alphabet is given in order.

[1] Sennrich et al. 2016 (arXiv:1508.07909).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from task_generator.datasets.byte_tokens import END_OF_DOCUMENT

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("<pad>", "<eos>", "<unk>")
SMALLEST = 256 + len(SPECIAL)
LARGEST = 2**16
_BATCH = 1024


def train_vocabulary(documents: Iterable[str], vocab_size: int) -> str:
    """Returns a vocabulary, as the JSON that `tokenizers` reads.

    Args:
      documents: What it is trained on.
      vocab_size: Its size; it is smaller if the documents have fewer different pairs.

    Raises:
      ValueError: If the size is below 259 (three special ids and the bytes) or ids would not fit 16 bits.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if not SMALLEST <= vocab_size <= LARGEST:
        raise ValueError(
            f"`vocab_size` must be from {SMALLEST} (256 bytes and three special ids) to {LARGEST} (ids of 16 "
            f"bits), got {vocab_size}."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer.to_str()


def read_vocabulary(vocabulary: str) -> Tokenizer:
    """Returns the tokenizer of a vocabulary; a "<eos>" that a text spells out is text to it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(vocabulary)
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode_subwords(vocabulary: str, documents: Iterable[str]) -> Iterator[np.ndarray]:
    """Yields the ids of each document and its end, uint16 [n + 1]."""
    tokenizer = read_vocabulary(vocabulary)
    remaining = iter(documents)
    while batch := list(islice(remaining, _BATCH)):
        for encoding in tokenizer.encode_batch(batch):
            yield np.asarray([*encoding.ids, END_OF_DOCUMENT], np.uint16)


def decode_subwords(vocabulary: str, ids: Sequence[int] | np.ndarray) -> str:
    """Returns the text of some ids; the end of a document becomes a line."""
    tokenizer = read_vocabulary(vocabulary)
    documents: list[list[int]] = [[]]
    for token in ids:
        if token == END_OF_DOCUMENT:
            documents.append([])
        else:
            documents[-1].append(int(token))
    return "\n".join(tokenizer.decode(document) for document in documents)


def trainer_version() -> str:
    """Returns what, besides the documents and the size, decides about a vocabulary: the library's version."""
    return importlib.metadata.version("tokenizers")
