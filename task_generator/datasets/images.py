"""Image data sets that come with scikit-learn: real data, no download.

Four disjoint splits: `train` for inner training, `inner_valid` for choices made inside a task, `outer_valid`
for choices made about optimizers, `test` for the number that is reported. They do not depend on a seed.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lopt.registry import lookup
from lopt.types import Split
from task_generator.datasets.digits import DIGITS
from task_generator.datasets.photo_patches import PHOTO_PATCHES
from task_generator.datasets.source import ImageSource

DATASETS: dict[str, ImageSource] = {
    "digits": DIGITS,
    "photo_patches": PHOTO_PATCHES,
}

if TYPE_CHECKING:
    DatasetName = str
else:  # the names are the registry's keys, so that a new entry is one line
    DatasetName = Literal[tuple(DATASETS)]


class ImageSplit(NamedTuple):
    """The examples of one split."""

    images: jax.Array  # [n, side, side, channels]: bytes where stored, float32 in [0, 1] in a batch
    labels: jax.Array  # int32 [n]


class ImageDataset(NamedTuple):
    """A data set at one image size, on the device.

    Pixels are kept as bytes: programs that close over the data embed it, so its size is compile time.
    """

    train: ImageSplit
    inner_valid: ImageSplit
    outer_valid: ImageSplit
    test: ImageSplit
    num_classes: int

    def batch(self, key: jax.Array, split: Split, batch_size: int) -> ImageSplit:
        """Draws `batch_size` examples with replacement, in-graph. The same key gives the same batch."""
        examples: ImageSplit = getattr(self, split)
        count = examples.labels.shape[0]
        # The modulo's bias is count / 2³², and it halves the cost of `randint`.
        index = (jax.random.bits(key, (batch_size,), jnp.uint32) % jnp.uint32(count)).astype(jnp.int32)
        images, labels = (x.at[index].get(mode="promise_in_bounds") for x in examples)
        return ImageSplit(images.astype(jnp.float32) * jnp.float32(1 / 255), labels)


@functools.lru_cache(maxsize=16)
def load(name: str, image_size: int) -> ImageDataset:
    """Returns the data set `name` with its images resized to `image_size`² pixels.

    Raises:
      UnknownNameError: If there is no such data set.
    """
    source = lookup(DATASETS, name, kind="dataset")
    splits = source.load(image_size)
    on_device = {
        split: ImageSplit(jnp.asarray(np.rint(images * 255), jnp.uint8), jnp.asarray(labels, jnp.int32))
        for split, (images, labels) in splits.items()
    }
    return ImageDataset(**on_device, num_classes=source.num_classes)
