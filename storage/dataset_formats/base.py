"""What the readers of image formats share: what is asked for, and how files become arrays of that kind.

A reader returns a function per official split, "train" and perhaps "test", that starts reading it: chunks of
images and labels, so that no data set has to fit the memory. It returns None where the folder is not in its
format.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage.errors import DatasetSourceError

Chunk = tuple[np.ndarray, np.ndarray]
"""Images, uint8 [n, side, side, channels], and labels, int32 [n]."""
Splits = dict[str, Callable[[], Iterator[Chunk]]]
"""Per official split, "train" and perhaps "test", what starts reading it."""

CHUNK_IMAGES = 1024
CHUNK_BYTES = 2**25


@dataclass(frozen=True)
class ImageRequest:
    """What the images of a data set are to be turned into.

    Attributes:
      side: Of the stored images, in pixels; images of another size are resized.
      channels: 1 or 3.
      num_classes: Labels are 0, …, num_classes − 1.
      resize: uint8 [n, h, w, c] and a side → uint8 [n, side, side, c], with antialiasing.
    """

    side: int
    channels: int
    num_classes: int
    resize: Callable[[np.ndarray, int], np.ndarray]


def conform(
    images: np.ndarray, labels: np.ndarray, request: ImageRequest, where: Path | str
) -> Iterator[Chunk]:
    """Yields images [n, h, w] or [n, h, w, c] and labels [n] as `request` asks for them.

    Grey from colour is the mean over the channels, colour from grey three times the same.

    Raises:
      DatasetSourceError: If they cannot be turned into that; names `where` they come from.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
        raise DatasetSourceError(
            f"`{where}` must have images of bytes, [n, height, width] or [n, height, width, 1 or 3], got "
            f"{images.dtype} {list(images.shape)}."
        )
    if labels.shape != images.shape[:1]:
        raise DatasetSourceError(
            f"`{where}` must have one label for each of its {images.shape[0]} images, got {list(labels.shape)}."
        )
    check_labels(labels, request.num_classes, where)
    step = max(1, CHUNK_BYTES // max(1, images[0].size if len(images) else 1))
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        yield _one(np.asarray(images[part]), request), labels[part].astype(np.int32)


def _one(images: np.ndarray, request: ImageRequest) -> np.ndarray:
    if images.shape[3] > request.channels:
        images = np.rint(images.mean(axis=3, keepdims=True)).astype(np.uint8)
    elif images.shape[3] < request.channels:
        images = np.repeat(images, request.channels, axis=3)
    return request.resize(images, request.side)


def check_labels(labels: np.ndarray, num_classes: int, where: Path | str) -> None:
    """Refuses labels that are not classes.

    Raises:
      DatasetSourceError: With the labels' range and the one required.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise DatasetSourceError(f"`{where}` must have whole numbers as labels, got {labels.dtype}.")
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise DatasetSourceError(
            f"the labels of `{where}` must be from 0 to {num_classes - 1}, got {labels.min()} to {labels.max()}. "
            "Is it another data set?"
        )


def decode(source: bytes | Path, channels: int, where: Path | str) -> np.ndarray:
    """Returns the pixels of an image file (PNG, JPEG, …), uint8 [h, w, channels].

    Raises:
      DatasetSourceError: If it cannot be decoded.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            grey = image.mode in ("1", "L", "I;16")
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetSourceError(f"`{where}` is not an image that can be read ({error}).") from error
    pixels = pixels[..., None] if grey else pixels
    if pixels.shape[2] == 3 and channels == 1:
        return np.rint(pixels.mean(axis=2, keepdims=True)).astype(np.uint8)
    return np.repeat(pixels, channels, axis=2) if pixels.shape[2] < channels else pixels


def decode_all(
    rows: Iterable[tuple[bytes | Path, int, Path | str]], request: ImageRequest
) -> Iterator[Chunk]:
    """Yields the chunks of (image file or its bytes, label, where from), decoded and resized one by one."""
    images: list[np.ndarray] = []
    labels: list[int] = []
    where: Path | str = ""
    for source, label, where in rows:
        pixels = decode(source, request.channels, where)
        images.append(request.resize(pixels[None], request.side))
        labels.append(label)
        if len(labels) == CHUNK_IMAGES:
            yield from conform(np.concatenate(images), np.asarray(labels), request, where)
            images, labels = [], []
    if labels:
        yield from conform(np.concatenate(images), np.asarray(labels), request, where)
