"""What families on images share: their fields, their data, and classification."""

from __future__ import annotations

import math
from typing import Self

import jax
import jax.numpy as jnp
from pydantic import Field, model_validator

from lopt.types import Dynamic, PyTree, Scalar, Split
from task_generator.datasets.images import (
    DATASETS,
    EMBEDDED_IMAGES,
    DatasetName,
    ImageDataset,
    ImageSplit,
    load,
)
from task_generator.distributions import Categorical, Distribution, LogUniformInt
from task_generator.families.base import cap
from task_generator.families.network import NetworkConfig
from task_generator.losses import cross_entropy

MAX_BATCH_PIXELS = 2**26
"""Refuses a batch of more than 256 MiB: a slip of the pen, not a task."""


class ImageConfig(NetworkConfig):
    """The fields of a network trained on images."""

    image_size: int = Field(ge=2, le=64, description="Side of the resized images, in pixels.")
    dataset: DatasetName = Field(description="Name of a data set of images.")

    @model_validator(mode="after")
    def _check_batch_fits(self) -> Self:
        pixels = self.batch_size * self.image_size**2 * DATASETS[self.dataset].channels
        if pixels > MAX_BATCH_PIXELS:
            raise ValueError(
                f"a batch may hold at most {MAX_BATCH_PIXELS} pixel values, got {pixels} from "
                f"batch_size={self.batch_size} and image_size={self.image_size}. Lower one of them."
            )
        return self

    @property
    def num_classes(self) -> int:
        """Of the data set."""
        return DATASETS[self.dataset].num_classes

    @property
    def channels(self) -> int:
        """Of the data set's images."""
        return DATASETS[self.dataset].channels

    @property
    def input_size(self) -> int:
        """The numbers in one image."""
        return self.image_size**2 * self.channels

    def example_inputs(self) -> jax.ShapeDtypeStruct:
        """Returns the shape of one image."""
        return jax.ShapeDtypeStruct((1, self.image_size, self.image_size, self.channels), jnp.float32)

    def load_data(self) -> PyTree:
        """Returns the data set at the configured size."""
        return load(self.dataset, self.image_size)

    def draw(self, data: PyTree, key: jax.Array, split: Split) -> ImageSplit:
        """Returns images [batch, side, side, channels] in [0, 1] and labels [batch]."""
        images: ImageDataset = data
        return images.batch(key, split, self.batch_size)

    def inputs(self, batch: ImageSplit, dynamic: Dynamic) -> jax.Array:
        """Returns the images."""
        del dynamic
        return batch.images

    def data_label(self) -> str:
        """Returns the data set, image side and batch size in a few words, and what is overridden."""
        parts = (f"{self.dataset} {self.image_size}px", f"batch {self.batch_size}", self.overrides_label())
        return " · ".join(part for part in parts if part)


class ClassificationConfig(ImageConfig):
    """Softmax cross-entropy in nats, averaged over the batch."""

    def loss(self, outputs: jax.Array, batch: ImageSplit, dynamic: Dynamic) -> Scalar:
        """Returns the mean cross-entropy of logits [batch, classes]."""
        del dynamic
        return cross_entropy(outputs, batch.labels)

    def normalize(self, loss: Scalar, data: PyTree, dynamic: Dynamic) -> Scalar:
        """Returns loss / ln(num_classes), so that 1 is chance level, capped.

        Deviation: the released code shifts and stretches instead ("class shift", 10·(L − ln(C/5)) / ln C).
        """
        del data, dynamic
        return cap(loss / math.log(self.num_classes))


def image_prior() -> dict[str, Distribution]:
    """Returns the priors of image size, batch size and data set that C.3.1–C.3.4 share.

    The paper draws from five data sets that have to be downloaded; this prior, from the embedded ones. A
    `TaskDistribution` puts its own data sets in their place.
    """
    return {
        "image_size": LogUniformInt(low=4, high=32),
        "batch_size": LogUniformInt(low=4, high=512),
        "dataset": Categorical(values=tuple(EMBEDDED_IMAGES)),
    }
