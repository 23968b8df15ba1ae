"""Deterministic auto-encoders: a fully connected network that reproduces its flattened input.

Registered, but in no training distribution so far: a task kind that evaluation can hold out.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3.3. Deviations: the number of layers is uniform over 0, …, 4,
as in the released code (the text says log-uniform, which 0 does not allow); the log loss is the logarithm of
the batch's mean squared error (the release averages logarithms over columns of pixels); normalisation is by
the error of the best constant image (the release: a clipped, shifted logarithm).
"""

from __future__ import annotations

import itertools
from typing import Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.types import PyTree, Scalar, Split
from task_generator.datasets.images import ImageDataset, ImageSplit, load
from task_generator.distributions import Distribution, LogUniformInt, UniformInt
from task_generator.dynamic import NETWORK_AXES, NetworkDynamic, sample_network_dynamic
from task_generator.families.base import cap, gradient_cost
from task_generator.families.images import ImageConfig, image_prior, switches_label
from task_generator.families.layer_widths import LayerWidthsConfig
from task_generator.nn import Mlp

LOG_EPSILON = 1e-8


class AutoencoderDynamic(NamedTuple):
    """One draw of the C.2 choices and C.3.3's three switches (bool [])."""

    network: NetworkDynamic
    log_loss: jax.Array
    center_data: jax.Array
    constrain_output: jax.Array


class AutoencoderData(NamedTuple):
    """A data set, and the error of its best constant image, for pixels in [0, 1]."""

    images: ImageDataset
    pixel_variance: jax.Array  # []


class AutoencoderConfig(LayerWidthsConfig, ImageConfig):
    """`num_layers` hidden layers of `hidden_size` units between image and reconstruction."""

    family: Literal["autoencoder"] = "autoencoder"
    hidden_size: int = Field(ge=1, le=4096, description="Units per hidden layer.")
    num_layers: int = Field(ge=0, le=32, description="Hidden layers.")
    log_loss: bool | None = Field(None, description="Train on the log of the error; None draws it.")
    center_data: bool | None = Field(None, description="Pixels in [-1, 1], not [0, 1]; None draws it.")
    constrain_output: bool | None = Field(None, description="Bound the output to that range; None draws it.")

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the ranges of C.3.3."""
        return {
            "hidden_size": LogUniformInt(low=8, high=128),
            "num_layers": UniformInt(low=0, high=4),
            **image_prior(),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns one layer of 32 units on digits."""
        return cls(hidden_size=32, num_layers=1, image_size=8, batch_size=64, dataset="digits")

    def network(self) -> Mlp:
        """Returns the module."""
        return Mlp(self.widths, self.input_size)

    def load_data(self) -> AutoencoderData:
        """Returns the data set and its variance per pixel."""
        images = load(self.dataset, self.image_size)
        pixels = images.train.images.astype(jnp.float32) / 255
        return AutoencoderData(images, pixels.var(axis=0).mean())

    def draw(self, data: PyTree, key: jax.Array, split: Split) -> ImageSplit:
        """Returns images [batch, side, side, channels] in [0, 1] (the labels go unused)."""
        held: AutoencoderData = data
        return held.images.batch(key, split, self.batch_size)

    def sample_dynamic(self, key: jax.Array) -> AutoencoderDynamic:
        """Draws the C.2 choices, and each switch with probability 1/2 unless it is fixed."""
        network_key, switch_key = jax.random.split(key)
        drawn = jax.random.bernoulli(switch_key, 0.5, (3,))
        fixed = (self.log_loss, self.center_data, self.constrain_output)
        switches = [drawn[i] if value is None else jnp.asarray(value) for i, value in enumerate(fixed)]
        return AutoencoderDynamic(sample_network_dynamic(network_key), *switches)

    def dynamic_axes(self) -> AutoencoderDynamic:
        """Returns None for what selects code, 0 for what is one per task."""
        return AutoencoderDynamic(NETWORK_AXES, 0, 0, 0)  # type: ignore[arg-type]

    def network_dynamic(self, dynamic: AutoencoderDynamic) -> NetworkDynamic:
        """Returns the C.2 choices."""
        return dynamic.network

    def inputs(self, batch: ImageSplit, dynamic: AutoencoderDynamic) -> jax.Array:
        """Returns the images as vectors, centred if so drawn."""
        images = batch.images.reshape(batch.images.shape[0], -1)
        return jnp.where(dynamic.center_data, 2.0 * images - 1.0, images)

    def loss(self, outputs: jax.Array, batch: ImageSplit, dynamic: AutoencoderDynamic) -> Scalar:
        """Returns the mean squared error over pixels and batch, or its logarithm."""
        bounded = jnp.where(dynamic.center_data, jnp.tanh(outputs), jax.nn.sigmoid(outputs))
        reconstruction = jnp.where(dynamic.constrain_output, bounded, outputs)
        difference = (reconstruction - self.inputs(batch, dynamic)).astype(jnp.float32)
        error = jnp.mean(jnp.square(difference))
        return jnp.where(dynamic.log_loss, jnp.log(error + LOG_EPSILON), error)

    def normalize(self, loss: Scalar, data: AutoencoderData, dynamic: AutoencoderDynamic) -> Scalar:
        """Returns the squared error over that of the best constant image, capped."""
        variance = data.pixel_variance * jnp.where(dynamic.center_data, 4.0, 1.0)
        return cap(jnp.where(dynamic.log_loss, jnp.exp(loss) - LOG_EPSILON, loss) / variance)

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        sizes = [self.input_size, *self.widths, self.input_size]
        products = sum(a * b for a, b in itertools.pairwise(sizes))
        return gradient_cost(
            products + sum(sizes[1:]),
            products,
            self.batch_size,
            inputs_per_example=self.input_size,
            values_per_example=sum(sizes[1:]),
            depth=len(sizes) - 1,
        )

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether the priors could draw what this configuration fixes."""
        return self.hidden_sizes is None and super().overrides_could_be_sampled()

    def overrides_label(self) -> str:
        """Returns what is overridden, in a few words."""
        switches = switches_label(self, "log_loss", "center_data", "constrain_output")
        return " · ".join(part for part in (super().overrides_label(), switches) if part)

    def label(self) -> str:
        """Returns e.g. "autoencoder 2x32 · digits 8px · batch 64"."""
        return f"autoencoder {self.widths_label()} · {self.data_label()}"
