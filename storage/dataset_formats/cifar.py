"""The binary version of CIFAR-10 and CIFAR-100: records of one or two label bytes and 3×32×32 bytes, planes first.

The Python version is pickled, and unpickling a file may run anything: it is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from storage.dataset_formats.base import Chunk, ImageRequest, Splits, conform
from storage.errors import DatasetSourceError

SIDE = 32
PIXELS = 3 * SIDE**2
_FOLDERS = (".", "cifar-10-batches-bin", "cifar-100-binary")
_PICKLED = ("data_batch_1", "cifar-10-batches-py", "cifar-100-python")


def read(folder: Path, request: ImageRequest) -> Splits | None:
    """Returns the splits of `data_batch_*.bin` and `test_batch.bin` (CIFAR-10), or `train.bin` and `test.bin`."""
    for place in (folder / name for name in _FOLDERS):
        ten = {"train": sorted(place.glob("data_batch_*.bin")), "test": sorted(place.glob("test_batch.bin"))}
        hundred = {split: sorted(place.glob(f"{split}.bin")) for split in ("train", "test")}
        for label_bytes, files in ((1, ten), (2, hundred)):
            if files["train"]:
                return {
                    split: partial(_chunks, paths, label_bytes, request)
                    for split, paths in files.items()
                    if paths
                }
    if any((folder / name).exists() for name in _PICKLED):
        raise DatasetSourceError(
            f"`{folder}` has the Python version of CIFAR, which is pickled and is not read. "
            "Get the binary version, `cifar-10-binary.tar.gz` or `cifar-100-binary.tar.gz`."
        )
    return None


def read_records(path: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images [n, 32, 32, 3] and labels [n]; of two label bytes the second, fine one.

    Raises:
      DatasetSourceError: If the file is not a whole number of records.
    """
    size = label_bytes + PIXELS
    data = np.fromfile(path, np.uint8)
    if not len(data) or len(data) % size:
        raise DatasetSourceError(
            f"`{path}` must be a whole number of records of {size} bytes, got {len(data)} bytes. Get it again."
        )
    records = data.reshape(-1, size)
    planes = records[:, label_bytes:].reshape(-1, 3, SIDE, SIDE)
    return planes.transpose(0, 2, 3, 1), records[:, label_bytes - 1]


def _chunks(paths: list[Path], label_bytes: int, request: ImageRequest) -> Iterator[Chunk]:
    for path in paths:
        yield from conform(*read_records(path, label_bytes), request, path)
