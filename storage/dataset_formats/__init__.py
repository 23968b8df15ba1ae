"""Readers of the formats that public data sets are kept in: one file each, from a folder to NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from storage.dataset_formats import cifar, idx, image_folder, matlab, npz, parquet
from storage.dataset_formats.base import ImageRequest, Splits
from storage.errors import DatasetSourceError

IMAGE_FORMATS: dict[str, Callable[[Path, ImageRequest], Splits | None]] = {
    "IDX": idx.read,
    "CIFAR binary": cifar.read,
    "Matlab": matlab.read,
    "npz": npz.read,
    "parquet": parquet.read,
    "image folder": image_folder.read,
}
"""In the order they are tried."""


def read_images(folder: Path, request: ImageRequest) -> tuple[str, Splits]:
    """Returns the name of the format that `folder` is in, and its official splits.

    Raises:
      DatasetSourceError: If it is in none of them, or has no training set.
    """
    if not folder.is_dir():
        raise DatasetSourceError(f"`{folder}` must be a folder with the data set's files; there is none.")
    for name, read in IMAGE_FORMATS.items():
        splits = read(folder, request)
        if splits is None:
            continue
        if "train" not in splits:
            raise DatasetSourceError(
                f"`{folder}` must have a training set; as {name} it has only a test set."
            )
        return name, splits
    raise DatasetSourceError(
        f"`{folder}` is in none of the known formats: {', '.join(IMAGE_FORMATS)}. docs/data.md has the file names."
    )
