"""Texts as bytes: ids 0 padding, 1 end of document, 2 unknown, then the 256 bytes of UTF-8."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

PADDING, END_OF_DOCUMENT, UNKNOWN = 0, 1, 2
FIRST_BYTE = 3
"""Id of byte 0: the special ids come first."""
_STEP = 2**22


def encode_bytes(document: str) -> np.ndarray:
    """Returns the ids of a document's UTF-8 bytes and the end of the document, uint16 [n + 1]."""
    ids = np.empty(len(data := document.encode()) + 1, np.uint16)
    ids[:-1] = np.frombuffer(data, np.uint8)
    ids[:-1] += FIRST_BYTE
    ids[-1] = END_OF_DOCUMENT
    return ids


def decode_bytes(ids: np.ndarray) -> str:
    """Returns the text of some ids; the end of a document becomes a line, a character cut in two a �."""
    data = np.where(ids >= FIRST_BYTE, ids - FIRST_BYTE, ord("\n")).astype(np.uint8)
    return data.tobytes().decode(errors="replace")


def documents_of(tokens: np.ndarray) -> Iterator[str]:
    """Yields the documents that a stream of byte ids was made of; `tokens` may be a file mapped into memory."""
    rest = np.empty(0, np.uint16)
    for start in range(0, tokens.shape[0], _STEP):
        part = np.concatenate([rest, tokens[start : start + _STEP]])
        ends = np.flatnonzero(part == END_OF_DOCUMENT)
        for first, end in zip([0, *(ends[:-1] + 1)], ends, strict=False):
            yield decode_bytes(part[first:end])
        rest = part[ends[-1] + 1 :] if len(ends) else part
    if len(rest):
        yield decode_bytes(rest)
