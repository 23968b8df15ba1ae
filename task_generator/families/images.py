"""What families on images share: their fields, their data, and classification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

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
from task_generator.dynamic import ACTIVATIONS, Activation
from task_generator.families.base import cap
from task_generator.families.network import NetworkConfig
from task_generator.initializers import LeafInit
from task_generator.losses import chance_loss, cross_entropy
from task_generator.nn_normalization import NormalizationName

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
        return cap(loss / chance_loss("cross_entropy", self.num_classes))


if TYPE_CHECKING:
    ClassifierActivation = str
else:
    ClassifierActivation = Literal[(*ACTIVATIONS, "prelu")]

PRELU_START = 0.25
LHOPT_ACTIVATIONS = ("relu", "leaky_relu", "very_leaky_relu", "elu", "prelu")
LHOPT_NORMALIZATIONS = ("none", "batch_norm", "layer_norm")


class PlainClassifierConfig(ClassificationConfig):
    """What classifiers without a prescribed architecture add for evaluation tasks; VeLO's priors draw none of it.

    At its default an added field stays out of the JSON, so that fingerprints are what they were before it existed.
    "prelu" is an activation with a parameter: one slope per layer, from 0.25 (He et al. 2015), on negative inputs.
    """

    activation: ClassifierActivation | None = Field(None, description="Fixes the activation; None draws it.")
    normalization: NormalizationName = Field(
        "none", exclude_if=lambda value: value == "none", description="Of each hidden layer."
    )

    @property
    def prelu(self) -> bool:
        """Whether layers have an activation of their own."""
        return self.activation == "prelu"

    def activation_function(self, dynamic: Dynamic) -> Activation:
        """Returns the activation that the network is handed: the identity where its layers have their own."""
        return (lambda x: x) if self.prelu else super().activation_function(dynamic)

    def leaf_init(self, path: str, shape: tuple[int, ...]) -> LeafInit:
        """Returns how the parameter at `path` starts."""
        is_slope = path.endswith("negative_slope")
        return LeafInit("constant", PRELU_START) if is_slope else super().leaf_init(path, shape)

    def num_hidden_extras(self, widths: tuple[int, ...]) -> int:
        """Returns the parameters that hidden layers have besides weights and biases."""
        return (2 * sum(widths) if self.normalization != "none" else 0) + (len(widths) if self.prelu else 0)

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether the priors could draw what this configuration fixes."""
        return self.normalization == "none" and super().overrides_could_be_sampled()

    def overrides_label(self) -> str:
        """Returns what is overridden, in a few words."""
        parts = (self.normalization if self.normalization != "none" else "", super().overrides_label())
        return " · ".join(part for part in parts if part)


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


def switches_label(config: ImageConfig, *names: str) -> str:
    """Returns the switches that `config` fixes: "log loss · no center data"."""
    fixed = {name.replace("_", " "): getattr(config, name) for name in names}
    return " · ".join(name if on else f"no {name}" for name, on in fixed.items() if on is not None)
