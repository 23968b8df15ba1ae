"""Deterministic auto-encoders: a fully connected network that reproduces its flattened input.

Registered, but in no training distribution so far: a task kind that evaluation can hold out.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3.3. Deviations: the number of layers is uniform over 0, …, 4,
as in the released code (the text says log-uniform, which 0 does not allow); the log loss is the logarithm of
the batch's mean squared error (the release averages logarithms over columns of pixels); normalisation is by
the error of the best constant image (the release: a clipped, shifted logarithm).
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from lopt.types import Params, Split, TaskState
from task_generator.datasets.images import ImageDataset, ImageSplit, load
from task_generator.distributions import Distribution, LogUniformInt, UniformInt
from task_generator.dynamic import (
    NETWORK_AXES,
    NetworkDynamic,
    resolve_activation,
    sample_network_dynamic,
)
from task_generator.families.base import ImageFamilyConfig, gradient_cost, image_prior
from task_generator.families.classification import cap
from task_generator.initializers import initialize
from task_generator.nn import Mlp, param_shapes

LOG_EPSILON = 1e-8


class AutoencoderConfig(ImageFamilyConfig):
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

    def build(self) -> AutoencoderFamily:
        """Returns the family."""
        data = load(self.dataset, self.image_size)
        network = Mlp((self.hidden_size,) * self.num_layers, self.input_size)
        shapes = param_shapes(network, (1, *data.train.images.shape[1:]))
        pixels = np.asarray(data.train.images, np.float32) / 255
        return AutoencoderFamily(self, network, data, shapes, float(pixels.var(axis=0).mean()))

    def approximate_cost(self) -> dict[str, float]:
        """Returns `num_params` and `flops_per_step`."""
        sizes = [self.input_size, *[self.hidden_size] * self.num_layers, self.input_size]
        products = sum(a * b for a, b in itertools.pairwise(sizes))
        return gradient_cost(products + sum(sizes[1:]), products, self.batch_size)

    def label(self) -> str:
        """Returns e.g. "autoencoder 2x32 · digits 8px · batch 64"."""
        return f"autoencoder {self.num_layers}x{self.hidden_size} · {self.data_label()}"


class AutoencoderDynamic(NamedTuple):
    """One draw of the C.2 choices and C.3.3's three switches (bool [])."""

    network: NetworkDynamic
    log_loss: jax.Array
    center_data: jax.Array
    constrain_output: jax.Array


@dataclasses.dataclass(frozen=True)
class AutoencoderFamily:
    """An auto-encoder on a data set. `pixel_variance` is the error of the best constant image, for [0, 1]."""

    config: AutoencoderConfig
    network: Mlp
    data: ImageDataset
    param_shapes: Params
    pixel_variance: float

    def sample_dynamic(self, key: jax.Array) -> AutoencoderDynamic:
        """Draws the C.2 choices, and each switch with probability 1/2 unless it is fixed."""
        network_key, switch_key = jax.random.split(key)
        drawn = jax.random.bernoulli(switch_key, 0.5, (3,))
        fixed = (self.config.log_loss, self.config.center_data, self.config.constrain_output)
        switches = [drawn[i] if value is None else jnp.asarray(value) for i, value in enumerate(fixed)]
        return AutoencoderDynamic(sample_network_dynamic(network_key), *switches)

    def dynamic_axes(self) -> AutoencoderDynamic:
        """Returns None for what selects code, 0 for what is one per task."""
        return AutoencoderDynamic(NETWORK_AXES, 0, 0, 0)  # type: ignore[arg-type]

    def task(self, dynamic: AutoencoderDynamic) -> AutoencoderTask:
        """Returns the problem that `dynamic` selects."""
        return AutoencoderTask(self, dynamic)


@dataclasses.dataclass(frozen=True)
class AutoencoderTask:
    """Mean squared error over pixels and batch, or its logarithm."""

    family: AutoencoderFamily
    dynamic: AutoencoderDynamic

    def init(self, key: jax.Array) -> TaskState:
        """Returns fresh parameters: weights from the selected initialiser, biases zero."""
        kind, scale = self.family.config.resolve_init(self.dynamic.network)
        return TaskState(params=initialize(self.family.param_shapes, key, kind, scale))

    def batch(self, key: jax.Array, split: Split = "train") -> ImageSplit:
        """Returns images [batch, side, side, channels] in [0, 1] (the labels go unused)."""
        return self.family.data.batch(key, split, self.family.config.batch_size)

    def loss(self, state: TaskState, key: jax.Array, batch: ImageSplit) -> tuple[jax.Array, TaskState]:
        """Returns the reconstruction error. Uses no randomness."""
        del key
        dynamic = self.dynamic
        images = batch.images.reshape(batch.images.shape[0], -1)
        target = jnp.where(dynamic.center_data, 2.0 * images - 1.0, images)
        activation = resolve_activation(self.family.config.activation, dynamic.network)
        output = self.family.network.apply({"params": state.params}, target, activation)
        bounded = jnp.where(dynamic.center_data, jnp.tanh(output), jax.nn.sigmoid(output))
        error = jnp.mean((jnp.where(dynamic.constrain_output, bounded, output) - target) ** 2)
        return jnp.where(dynamic.log_loss, jnp.log(error + LOG_EPSILON), error), state

    def normalize(self, loss: jax.Array) -> jax.Array:
        """Returns the squared error over that of the best constant image, capped like a classifier's."""
        variance = self.family.pixel_variance * jnp.where(self.dynamic.center_data, 4.0, 1.0)
        return cap(jnp.where(self.dynamic.log_loss, jnp.exp(loss) - LOG_EPSILON, loss) / variance)
