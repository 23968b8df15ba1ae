"""Image classification with a Flax network: what the `mlp` and `conv` families share."""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from lopt.types import Params, Split, TaskState
from task_generator.datasets.images import ImageDataset, ImageSplit, load
from task_generator.dynamic import (
    NETWORK_AXES,
    NetworkDynamic,
    resolve_activation,
    sample_network_dynamic,
)
from task_generator.families.base import ImageFamilyConfig
from task_generator.initializers import initialize
from task_generator.nn import param_shapes

NORMALIZED_CAP = 10.0
"""Where a normalised loss ends: ten times chance level. What is not finite maps there too."""


@dataclasses.dataclass(frozen=True)
class ClassificationFamily:
    """A network on a data set; activation, initialiser and scale are dynamic."""

    config: ImageFamilyConfig
    network: nn.Module
    data: ImageDataset
    param_shapes: Params

    def sample_dynamic(self, key: jax.Array) -> NetworkDynamic:
        """Draws the C.2 choices."""
        return sample_network_dynamic(key)

    def dynamic_axes(self) -> NetworkDynamic:
        """Returns None for what selects code, 0 for what is one per task."""
        return NETWORK_AXES

    def task(self, dynamic: NetworkDynamic) -> ClassificationTask:
        """Returns the problem that `dynamic` selects."""
        return ClassificationTask(self, dynamic)


@dataclasses.dataclass(frozen=True)
class ClassificationTask:
    """Softmax cross-entropy in nats, averaged over the batch."""

    family: ClassificationFamily
    dynamic: NetworkDynamic

    def init(self, key: jax.Array) -> TaskState:
        """Returns fresh parameters: weights from the selected initialiser, biases zero."""
        kind, scale = self.family.config.resolve_init(self.dynamic)
        return TaskState(params=initialize(self.family.param_shapes, key, kind, scale))

    def batch(self, key: jax.Array, split: Split = "train") -> ImageSplit:
        """Returns images [batch, side, side, channels] and labels [batch], drawn with replacement."""
        return self.family.data.batch(key, split, self.family.config.batch_size)

    def loss(self, state: TaskState, key: jax.Array, batch: ImageSplit) -> tuple[jax.Array, TaskState]:
        """Returns the mean cross-entropy. Uses no randomness."""
        del key
        activation = resolve_activation(self.family.config.activation, self.dynamic)
        logits = self.family.network.apply({"params": state.params}, batch.images, activation)
        return cross_entropy(logits, batch.labels), state

    def normalize(self, loss: jax.Array) -> jax.Array:
        """Returns loss / ln(num_classes), so that 1 is chance level, at most `NORMALIZED_CAP`.

        Deviation: the released code shifts and stretches instead ("class shift", 10·(L − ln(C/5)) / ln C).
        """
        return cap(loss / math.log(self.family.data.num_classes))


def classification_family(config: ImageFamilyConfig, network: nn.Module) -> ClassificationFamily:
    """Returns the family of `network` on the configuration's data."""
    data = load(config.dataset, config.image_size)
    shapes = param_shapes(network, (1, *data.train.images.shape[1:]))
    return ClassificationFamily(config, network, data, shapes)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean of −log softmax(logits [n, c]) at labels [n].

    Selects by comparison: a gather's gradient is a scatter, which is slow on CPUs.
    """
    chosen = labels[:, None] == jnp.arange(logits.shape[-1], dtype=labels.dtype)[None, :]
    return -jnp.mean(jnp.sum(jnp.where(chosen, jax.nn.log_softmax(logits), 0.0), axis=-1))


def cap(normalized: jax.Array) -> jax.Array:
    """Returns the normalised loss, with everything above the cap, infinite or NaN at the cap."""
    return jnp.where(normalized < NORMALIZED_CAP, normalized, NORMALIZED_CAP)
