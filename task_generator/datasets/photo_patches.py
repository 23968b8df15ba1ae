"""Patches of scikit-learn's two sample photographs: which photograph, and at which height, is a patch from?

Two photographs of 427×640 pixels in RGB, four horizontal bands each: eight classes. No pixel is shared
between splits: the width is cut into vertical strips of one split each, and a patch of 12×12 pixels lies
inside one strip and one band. The pattern repeats every 80 columns, each time starting one split further:

    train 41, inner_valid 13, outer_valid 13, test 13; inner_valid 13, outer_valid 13, test 13, train 41; …

Tried: two wide blocks per split and patches of 24. A network then does worse than chance on what it has not
trained on, because the photographs differ from left to right; with narrow strips it generalises. Patches of
one split may overlap, and neighbouring splits show neighbouring places.
"""

from __future__ import annotations

import functools

import numpy as np

from task_generator.datasets.source import Arrays, ImageSource, resize_bytes

PATCH = 12
STEP_DOWN, STEP_RIGHT = 8, 9  # between patches of a strip, in pixels
NUM_BANDS = 4
NUM_REPEATS = 8
STRIPS = (("train", 41), ("inner_valid", 13), ("outer_valid", 13), ("test", 13))


def strip_bounds() -> list[tuple[str, int, int]]:
    """Returns (split, first column, column past the last) of every strip, left to right."""
    bounds, start = [], 0
    for repeat in range(NUM_REPEATS):
        first = repeat % len(STRIPS)
        for split, width in (*STRIPS[first:], *STRIPS[:first]):
            bounds.append((split, start, start + width))
            start += width
    return bounds


def cut_patches(photographs: list[np.ndarray]) -> dict[str, Arrays]:
    """Returns per split patches [n, 12, 12, c] of the photographs [height, 640, c], and labels [n]."""
    found: dict[str, tuple[list[np.ndarray], list[int]]] = {split: ([], []) for split, _ in STRIPS}
    for photograph, pixels in enumerate(photographs):
        height = pixels.shape[0] // NUM_BANDS
        for band in range(NUM_BANDS):
            for split, left, right in strip_bounds():
                images, labels = found[split]
                for y in range(band * height, (band + 1) * height - PATCH + 1, STEP_DOWN):
                    for x in range(left, right - PATCH + 1, STEP_RIGHT):
                        images.append(pixels[y : y + PATCH, x : x + PATCH])
                        labels.append(photograph * NUM_BANDS + band)
    return {split: (np.stack(images), np.array(labels)) for split, (images, labels) in found.items()}


@functools.lru_cache(maxsize=1)
def _patches() -> dict[str, Arrays]:
    from sklearn.datasets import load_sample_images  # takes a second to import: only where data is needed

    return cut_patches(load_sample_images().images)


def _load(image_size: int) -> dict[str, Arrays]:
    return {
        split: (resize_bytes(images, image_size), labels) for split, (images, labels) in _patches().items()
    }


PHOTO_PATCHES = ImageSource(
    num_classes=2 * NUM_BANDS, channels=3, num_images=5376, load=_load, native_size=PATCH
)
