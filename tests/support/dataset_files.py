"""Writes tiny data sets in the formats that public ones are published in, by other means than the readers'."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def images(count: int, side: int, channels: int, seed: int = 0) -> np.ndarray:
    """Returns random pixels, uint8 [count, side, side, channels]."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def labels(count: int, num_classes: int) -> np.ndarray:
    """Returns labels in order, as files sorted by class have them."""
    return np.sort(np.arange(count) % num_classes)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes an IDX file of bytes; gzipped if the name says so."""
    data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_mnist(
    folder: Path, num_train: int = 60, num_test: int = 20, suffix: str = ".gz"
) -> dict[str, np.ndarray]:
    """Writes the four files of MNIST; returns what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {}
    for prefix, count, seed in (("train", num_train, 1), ("t10k", num_test, 2)):
        contents[f"{prefix}_images"] = images(count, 28, 1, seed)
        contents[f"{prefix}_labels"] = labels(count, 10).astype(np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", contents[f"{prefix}_images"][..., 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", contents[f"{prefix}_labels"])
    return contents


def cifar_record(pixels: np.ndarray, label_bytes: tuple[int, ...]) -> bytes:
    """Returns a record of the binary version: labels, then the red, green and blue planes, row by row."""
    planes = b"".join(bytes(pixels[:, :, channel].reshape(-1).tolist()) for channel in range(3))
    return bytes(label_bytes) + planes


def png(pixels: np.ndarray) -> bytes:
    """Returns a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(buffer, "png")
    return buffer.getvalue()
