"""IDX, the format of MNIST and Fashion-MNIST: a magic number, the axes' lengths, the bytes; gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from storage.dataset_formats.base import Chunk, ImageRequest, Splits, conform
from storage.errors import DatasetSourceError

_BYTES = 8
"""The code of the type "unsigned byte"."""
_PREFIXES = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """Returns the array of an IDX file of bytes.

    Raises:
      DatasetSourceError: If it is not one, or not whole.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetSourceError(f"`{path}` cannot be read ({error}). Get it again.") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _BYTES:
        raise DatasetSourceError(f"`{path}` is not an IDX file of bytes: it starts with {data[:4]!r}.")
    start = 4 + 4 * data[3]
    shape = tuple(int(length) for length in np.frombuffer(data[4:start], ">u4"))
    if len(data) != start + math.prod(shape):
        raise DatasetSourceError(
            f"`{path}` must have {start + math.prod(shape)} bytes for an array of {list(shape)}, got {len(data)}. "
            "Get it again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read(folder: Path, request: ImageRequest) -> Splits | None:
    """Returns the splits of `train-images-idx3-ubyte` and its three siblings, with or without `.gz`."""
    splits: Splits = {}
    for split, prefix in _PREFIXES.items():
        images, labels = (_find(folder, f"{prefix}-{kind}") for kind in ("images", "labels"))
        if images is None and labels is None:
            continue
        if images is None or labels is None:
            raise DatasetSourceError(
                f"`{folder}` must have both images and labels of `{prefix}`, got only `{images or labels}`."
            )
        splits[split] = partial(_chunks, images, labels, request)
    return splits or None


def _find(folder: Path, stem: str) -> Path | None:
    for pattern in (f"{stem}[-.]idx?-ubyte", f"{stem}[-.]idx?-ubyte.gz"):
        for path in sorted(folder.glob(pattern)):
            return path
    return None


def _chunks(images: Path, labels: Path, request: ImageRequest) -> Iterator[Chunk]:
    return conform(read_idx(images), read_idx(labels), request, images)
