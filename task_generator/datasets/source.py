"""What a data set declares, and the resizing they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]
"""Images, uint8 [n, side, side, channels], and labels, integer [n]."""


class ImageSource(NamedTuple):
    """A data set's description; only `load` (image size → arrays per split) costs anything."""

    num_classes: int
    channels: int
    num_images: int
    """Over all splits: what the data set's size on a device is computed from before anything is loaded."""
    load: Callable[[int], dict[str, Arrays]]


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
    """Resizes [n, h, w, c] to [n, size, size, c] as `jax.image.resize(…, "linear", antialias=True)` does.

    Two matrix products in numpy, so that no program is compiled for each of the many sizes.
    """
    rows = resize_matrix(images.shape[1], size)
    columns = resize_matrix(images.shape[2], size)
    return np.einsum("ah,nhwc,bw->nabc", rows, images, columns, optimize=True)


def resize_matrix(source: int, target: int) -> np.ndarray:
    """Returns the [target, source] weights of a linear interpolation, low-pass filtered when it shrinks."""
    scale = target / source
    centres = (np.arange(target) + 0.5) / scale - 0.5
    distance = np.abs(centres[:, None] - np.arange(source)[None, :]) / max(1.0 / scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
