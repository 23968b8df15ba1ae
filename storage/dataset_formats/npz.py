"""NumPy archives: one with `x_train`, `y_train`, `x_test`, `y_test`, or the batches of downsampled ImageNet.

Those have `data`, uint8 [n, 3·side²] with planes first, and `labels` from 1. Nothing pickled is read.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from storage.dataset_formats.base import Chunk, ImageRequest, Splits, conform
from storage.errors import DatasetSourceError


def read(folder: Path, request: ImageRequest) -> Splits | None:
    """Returns the splits of the archives in `folder`."""
    batches = {
        "train": sorted(folder.glob("*train*batch*.npz"), key=lambda path: (len(path.name), path.name)),
        "test": sorted(folder.glob("val*.npz")),
    }
    if batches["train"]:
        return {split: partial(_batches, paths, request) for split, paths in batches.items() if paths}
    archives = sorted(folder.glob("*.npz"))
    if not archives:
        return None
    if len(archives) > 1:
        names = ", ".join(path.name for path in archives)
        raise DatasetSourceError(
            f"`{folder}` must have one archive with `x_train`, `y_train`, `x_test` and `y_test`, or "
            f"`train_data_batch_*.npz` and `val_data.npz`; got {names}."
        )
    path = archives[0]
    names_of = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
    present = _names(path)
    return {
        split: partial(_whole, path, names, request)
        for split, names in names_of.items()
        if split == "train" or set(names) <= present
    }


def _names(path: Path) -> set[str]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return set(archive.files)
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise DatasetSourceError(f"`{path}` is not an archive of arrays ({error}). Get it again.") from error


def _arrays(path: Path, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    present = _names(path)
    if missing := sorted(set(names) - present):
        raise DatasetSourceError(
            f"`{path}` must have the arrays {', '.join(names)}; {', '.join(missing)} is missing among "
            f"{', '.join(sorted(present)) or 'none'}."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            images, labels = (archive[name] for name in names)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetSourceError(f"`{path}` cannot be read ({error}). Nothing pickled is read.") from error
    return images, labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _whole(path: Path, names: tuple[str, str], request: ImageRequest) -> Iterator[Chunk]:
    return conform(*_arrays(path, names), request, path)


def _batches(paths: list[Path], request: ImageRequest) -> Iterator[Chunk]:
    for path in paths:
        data, labels = _arrays(path, ("data", "labels"))
        side = math.isqrt(data.shape[-1] // 3)
        if data.ndim != 2 or 3 * side**2 != data.shape[1]:
            raise DatasetSourceError(f"`{path}` must have `data` of [n, 3·side²], got {list(data.shape)}.")
        images = data.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)
        yield from conform(images, labels.astype(np.int64) - 1, request, path)
