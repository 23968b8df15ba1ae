"""Image data sets by name: embedded ones, which come with scikit-learn, and public ones that were prepared.

Four disjoint splits: `train` for inner training, `inner_valid` for choices made inside a task, `outer_valid`
for choices made about optimizers, `test` for the number that is reported. They do not depend on a seed.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp

from lopt.registry import lookup
from lopt.types import SPLITS, Split
from task_generator.datasets.digits import DIGITS
from task_generator.datasets.photo_patches import PHOTO_PATCHES
from task_generator.datasets.placement import check_fits_device
from task_generator.datasets.prepared import prepared_count
from task_generator.datasets.public import PUBLIC_IMAGES
from task_generator.datasets.source import ImageSource

EMBEDDED_IMAGES: dict[str, ImageSource] = {
    "digits": DIGITS,
    "photo_patches": PHOTO_PATCHES,
}

DATASETS: dict[str, ImageSource] = {**EMBEDDED_IMAGES, **PUBLIC_IMAGES}

if TYPE_CHECKING:
    DatasetName = str
else:  # the names are the registry's keys, so that a new entry is one line
    DatasetName = Literal[tuple(DATASETS)]


class ImageSplit(NamedTuple):
    """The examples of one split."""

    images: jax.Array  # [n, side, side, channels]: bytes where stored, float32 in [0, 1] in a batch
    labels: jax.Array  # int32 [n]


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """A data set at one image size, on the device.

    Pixels are kept as bytes. A pytree, so that a program can take it as an argument: one that closed over it would
    hold it as a constant, and 150 MB of constants take eight seconds to compile.
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


jax.tree_util.register_dataclass(ImageDataset, data_fields=list(SPLITS), meta_fields=["num_classes"])


@functools.lru_cache(maxsize=16)
def load(name: str, image_size: int) -> ImageDataset:
    """Returns the data set `name` with its images resized to `image_size`² pixels.

    Raises:
      UnknownNameError: If there is no such data set.
      DatasetNotPreparedError: If it has to be prepared first.
      DatasetTooLargeError: If it does not fit the device.
    """
    source = lookup(DATASETS, name, kind="dataset")
    check_fits_device(
        f"dataset {name!r} at {image_size}×{image_size}",
        prepared_count(name, source.num_images) * image_size**2 * source.channels,
        f"Choose a smaller `image_size` or another data set, or `keirin data prepare {name} --max-examples N`.",
    )
    on_device = {
        split: ImageSplit(jnp.asarray(images, jnp.uint8), jnp.asarray(labels, jnp.int32))
        for split, (images, labels) in source.load(image_size).items()
    }
    return ImageDataset(**on_device, num_classes=source.num_classes)
