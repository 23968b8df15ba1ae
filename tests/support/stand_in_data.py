"""Made-up data in the shapes of the public data sets, for tests of what is built on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lopt.types import SPLITS
from task_generator.datasets.images import DATASETS
from task_generator.datasets.text import TEXTS

NUM_IMAGES = 16
NUM_TOKENS = 600


class StandInReader:
    """Has every public data set, in few examples of the true shape. To be handed to `prepared.use_reader`."""

    def read_images(self, name: str, image_size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns random images and labels."""
        source, rng = DATASETS[name], np.random.default_rng(0)
        shape = (NUM_IMAGES, image_size, image_size, source.channels)
        return {
            split: (
                rng.integers(0, 256, shape, dtype=np.uint8),
                rng.integers(0, source.num_classes, NUM_IMAGES),
            )
            for split in SPLITS
        }

    def read_tokens(self, name: str) -> dict[str, np.ndarray]:
        """Returns random tokens."""
        rng = np.random.default_rng(0)
        return {split: rng.integers(1, TEXTS[name].vocab_size, NUM_TOKENS) for split in SPLITS}

    def count(self, name: str) -> int:
        """Returns how many images or tokens there are."""
        return len(SPLITS) * (NUM_IMAGES if name in DATASETS else NUM_TOKENS)

    def cached(self, name: str, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Returns what `make` returns."""
        del name, key
        return make()
