"""scikit-learn's handwritten digits: 1797 grey images of 8×8 pixels, ten classes.

The examples are shuffled once with a fixed seed, then cut 60 / 13 / 13 / 14 %.
"""

from __future__ import annotations

import numpy as np

from task_generator.datasets.source import Arrays, ImageSource, resize, to_bytes

_CUTS = {"train": 0.60, "inner_valid": 0.73, "outer_valid": 0.86, "test": 1.0}


def _load(image_size: int) -> dict[str, Arrays]:
    from sklearn.datasets import load_digits  # takes a second to import: only where data is needed

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = resize(data.images[..., None].astype(np.float32)[order] / np.float32(16), image_size)
    labels = data.target[order]
    splits, start = {}, 0
    for name, fraction in _CUTS.items():
        stop = round(fraction * len(labels))
        splits[name] = (to_bytes(images[start:stop]), labels[start:stop])
        start = stop
    return splits


DIGITS = ImageSource(num_classes=10, channels=1, num_images=1797, load=_load, native_size=8)
