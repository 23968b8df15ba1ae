"""What a data set declares, and the resizing they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

CHUNK_NUMBERS = 2**22
"""How many pixel values are resized at a time: 16 MB of float32."""

Arrays = tuple[np.ndarray, np.ndarray]
"""Images, uint8 [n, side, side, channels], and labels, integer [n]."""


class ImageSource(NamedTuple):
    """A data set's description; only `load` (image size → arrays per split) costs anything."""

    num_classes: int
    channels: int
    num_images: int
    """Over all splits: what the data set's size on a device is computed from before anything is loaded."""
    load: Callable[[int], dict[str, Arrays]]
    native_size: int = 32
    """Side of the images as they are published, in pixels."""


class TextSource(NamedTuple):
    """A text's description; only `load` (→ tokens per split, integer [n]) costs anything."""

    vocab_size: int
    """Token ids are below this; 0 is padding and occurs in no embedded text."""
    num_tokens: int
    """Over all splits, as far as known before loading."""
    load: Callable[[], dict[str, np.ndarray]]


def to_bytes(images: np.ndarray) -> np.ndarray:
    """Turns numbers in [0, 1] into bytes."""
    return np.clip(np.rint(images * 255), 0, 255).astype(np.uint8)


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resizes [n, h, w, c] to float32 [n, size, size, c] as `jax.image.resize(…, "linear", antialias=True)` does.

    Two matrix products in numpy, so that no program is compiled for each of the many sizes; in chunks, so that what
    is computed on the way takes no more than about 64 MB however many images there are. Columns of all channels are
    one product with a matrix that keeps channels apart: three times the operations, in a fifth of the time.
    """
    count, height, width, channels = images.shape
    rows = resize_matrix(height, size)
    columns = np.kron(resize_matrix(width, size).T, np.eye(channels, dtype=np.float32))
    resized = np.empty((count, size, size, channels), np.float32)
    for part in chunks_of(images, size):
        shrunk = rows @ images[part].reshape(-1, height, width * channels)
        resized[part] = (shrunk.reshape(-1, width * channels) @ columns).reshape(-1, size, size, channels)
    return resized


def resize_bytes(images: np.ndarray, size: int) -> np.ndarray:
    """Resizes uint8 [n, h, w, c] to uint8 [n, size, size, c]; images that have that size are returned as they are.

    Only the result is held in memory as a whole: `images` may be a file mapped into memory.
    """
    if images.shape[1:3] == (size, size):
        return images
    resized = np.empty((images.shape[0], size, size, images.shape[3]), np.uint8)
    for part in chunks_of(images, size):
        resized[part] = to_bytes(resize(images[part].astype(np.float32) / np.float32(255), size))
    return resized


def chunks_of(images: np.ndarray, size: int) -> Iterator[slice]:
    """Yields slices of `images` [n, h, w, c] that take about `CHUNK_NUMBERS` numbers, before or after resizing."""
    _, height, width, channels = images.shape
    per_image = max(height * max(width, size), size * size) * channels
    step = max(1, CHUNK_NUMBERS // per_image)
    for start in range(0, images.shape[0], step):
        yield slice(start, start + step)


def resize_matrix(source: int, target: int) -> np.ndarray:
    """Returns the [target, source] weights of a linear interpolation, low-pass filtered when it shrinks."""
    scale = target / source
    centres = (np.arange(target) + 0.5) / scale - 0.5
    distance = np.abs(centres[:, None] - np.arange(source)[None, :]) / max(1.0 / scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
