"""What a data set declares, and the resizing they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]
"""Images, float [n, side, side, channels] in [0, 1], and labels, integer [n]."""


class ImageSource(NamedTuple):
    """A data set's description; only `load` (image size → arrays per split) costs anything."""

    num_classes: int
    channels: int
    load: Callable[[int], dict[str, Arrays]]


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
