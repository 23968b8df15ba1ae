"""The Street View House Numbers' own format: `train_32x32.mat` and `test_32x32.mat`, with `X` and `y`.

`X` is uint8 [32, 32, 3, n]; in `y` the digit 0 is called 10.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from storage.dataset_formats.base import Chunk, ImageRequest, Splits, conform
from storage.errors import DatasetSourceError


def read(folder: Path, request: ImageRequest) -> Splits | None:
    """Returns the splits of the two files."""
    paths = {split: folder / f"{split}_32x32.mat" for split in ("train", "test")}
    return {split: partial(_chunks, path, request) for split, path in paths.items() if path.is_file()} or None


def _chunks(path: Path, request: ImageRequest) -> Iterator[Chunk]:
    from scipy.io import loadmat

    try:
        contents = loadmat(path)
        images, labels = contents["X"], contents["y"]
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise DatasetSourceError(
            f"`{path}` cannot be read as a Matlab file with `X` and `y` ({error!r})."
        ) from error
    if images.ndim != 4:
        raise DatasetSourceError(f"`{path}` must have `X` of [32, 32, 3, n], got {list(images.shape)}.")
    digits = labels.reshape(-1).astype(np.int64)
    return conform(images.transpose(3, 0, 1, 2), np.where(digits == 10, 0, digits), request, path)
