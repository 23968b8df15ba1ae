"""Normalising flows on flattened images: density models with an exact likelihood.

[1] Metz et al. 2020 (arXiv:2009.11243), §3.2 names masked autoregressive flows among its task kinds; with real NVP
    they come from TaskSet (Metz et al. 2020, arXiv:2002.11887). [2] Papamakarios et al. 2017 (arXiv:1705.07057).
[3] Dinh et al. 2017 (arXiv:1605.08803).

Data are dequantised, as in [2, 3]: a pixel k ∈ {0, …, 255} becomes y = (k + u) / 256, u uniform on [0, 1) and drawn
with the batch, then x = logit(α + (1 − 2α)·y), α = 0.05, so that the flow works on all reals. The loss is the
negative log-likelihood per pixel value in nats, of k + u: its expectation bounds that of a lossless code of the
image from above, so it is not negative (but a batch's may be), and a code that knows nothing needs ln 256.

Deviations: no batch normalisation between layers; real NVP is without the multi-scale architecture and its masks
alternate along the flattened image; log-scales are bounded (`networks.normalizing_flow`); the networks' last
layers start at a tenth of the drawn scale, so that a flow starts near the identity whatever was drawn. [1] prints
no ranges: these are of the kind of Metz et al. 2022, App. C.3.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.types import Dynamic, PyTree, Scalar, Split
from task_generator.datasets.images import ImageSplit
from task_generator.distributions import Distribution, LogUniformInt, UniformInt
from task_generator.families.base import cap, gradient_cost
from task_generator.families.images import ImageConfig, image_prior
from task_generator.initializers import LeafInit, default_leaf_init
from task_generator.networks.normalizing_flow import AutoregressiveFlow, CouplingFlow, Transformed

NUM_LEVELS = 256
LOGIT_MARGIN = 0.05
"""α: the data lie this far inside the interval that the logit stretches over the reals."""
OUTPUT_SCALE = 0.1


class NormalizingFlowConfig(ImageConfig):
    """`num_flow_layers` layers, each with a network of `num_layers` hidden layers of `hidden_size` units."""

    hidden_size: int = Field(ge=1, le=4096, description="Units per hidden layer.")
    num_layers: int = Field(ge=0, le=8, description="Hidden layers of each network.")
    num_flow_layers: int = Field(ge=1, le=32, description="Invertible layers.")

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the ranges: hidden sizes and images as C.3.1's, few layers of each kind."""
        return {
            "hidden_size": LogUniformInt(low=8, high=128),
            "num_layers": UniformInt(low=1, high=2),
            "num_flow_layers": UniformInt(low=1, high=4),
            **image_prior(),
        }

    def layer_sizes(self) -> list[list[int]]:
        """Returns for each of the flow's layers the sizes of its network, input and output included."""
        raise NotImplementedError

    def example_inputs(self) -> jax.ShapeDtypeStruct:
        """Returns the shape of one flattened image."""
        return jax.ShapeDtypeStruct((1, self.input_size), jnp.float32)

    def draw(self, data: PyTree, key: jax.Array, split: Split) -> ImageSplit:
        """Returns dequantised images [batch, side, side, channels] in [0, 1] (the labels go unused)."""
        batch = super().draw(data, key, split)
        noise = jax.random.uniform(jax.random.fold_in(key, 1), batch.images.shape, jnp.float32)
        return batch._replace(images=(batch.images * (NUM_LEVELS - 1) + noise) / NUM_LEVELS)

    def inputs(self, batch: ImageSplit, dynamic: Dynamic) -> jax.Array:
        """Returns the flattened images' logits."""
        del dynamic
        return stretch(flatten(batch.images))[0]

    def loss(self, outputs: Transformed, batch: ImageSplit, dynamic: Dynamic) -> Scalar:
        """Returns the negative log-likelihood in nats per pixel value, those on a scale of 0 to 256."""
        del dynamic
        return negative_log_likelihood(outputs, flatten(batch.images))

    def normalize(self, loss: Scalar, data: PyTree, dynamic: Dynamic) -> Scalar:
        """Returns loss / ln 256, so that 1 is a code that knows nothing, capped."""
        del data, dynamic
        return cap(loss / math.log(NUM_LEVELS))

    def leaf_init(self, path: str, shape: tuple[int, ...]) -> LeafInit:
        """Returns a smaller start for the networks' last layers."""
        rule = default_leaf_init(path, shape)
        return rule._replace(value=OUTPUT_SCALE) if path.endswith("output/kernel") else rule

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters (masked ones included), operations, values and depth."""
        layers = self.layer_sizes()
        products = sum(a * b for sizes in layers for a, b in itertools.pairwise(sizes))
        biases = sum(sum(sizes[1:]) for sizes in layers)
        return gradient_cost(
            products + biases,
            products,
            self.batch_size,
            inputs_per_example=self.input_size,
            values_per_example=sum(map(sum, layers)),
            depth=sum(len(sizes) - 1 for sizes in layers),
        )

    def label(self) -> str:
        """Returns e.g. "maf 2 x 1x32 · digits 8px · batch 64"."""
        sizes = f"{self.num_flow_layers} x {self.num_layers}x{self.hidden_size}"
        return f"{self.family} {sizes} · {self.data_label()}"


class MafConfig(NormalizingFlowConfig):
    """A masked autoregressive flow [2]."""

    family: Literal["maf"] = "maf"

    @classmethod
    def example(cls) -> Self:
        """Returns two layers of 32 units on digits."""
        return cls(
            hidden_size=32, num_layers=1, num_flow_layers=2, image_size=8, batch_size=64, dataset="digits"
        )

    def network(self) -> nn.Module:
        """Returns the module."""
        return AutoregressiveFlow(self.num_flow_layers, (self.hidden_size,) * self.num_layers)

    def layer_sizes(self) -> list[list[int]]:
        """Returns the sizes of the masked networks, which see the whole image."""
        hidden = [self.hidden_size] * self.num_layers
        return [[self.input_size, *hidden, 2 * self.input_size]] * self.num_flow_layers


class RealNvpConfig(NormalizingFlowConfig):
    """A stack of affine couplings, as in real NVP [3]; one layer alone leaves half of the numbers as they are."""

    family: Literal["real_nvp"] = "real_nvp"

    @classmethod
    def example(cls) -> Self:
        """Returns two layers of 32 units on digits."""
        return cls(
            hidden_size=32, num_layers=1, num_flow_layers=2, image_size=8, batch_size=64, dataset="digits"
        )

    def network(self) -> nn.Module:
        """Returns the module."""
        hidden_sizes = (self.hidden_size,) * self.num_layers
        return CouplingFlow(self.num_flow_layers, hidden_sizes, self.input_size)

    def layer_sizes(self) -> list[list[int]]:
        """Returns the sizes of the networks: from half of the image to two numbers for each of the other."""
        halves = ((self.input_size + 1) // 2, self.input_size // 2)
        hidden = [self.hidden_size] * self.num_layers
        return [[halves[i % 2], *hidden, 2 * halves[1 - i % 2]] for i in range(self.num_flow_layers)]


def flatten(images: jax.Array) -> jax.Array:
    """Returns images [batch, …] as vectors [batch, d]."""
    return images.reshape(images.shape[0], -1)


def stretch(pixels: jax.Array) -> Transformed:
    """Maps pixels [batch, d] in [0, 1] to all reals by a logit with a margin, with its log-determinant [batch]."""
    inside = LOGIT_MARGIN + (1.0 - 2.0 * LOGIT_MARGIN) * pixels
    log_p, log_q = jnp.log(inside), jnp.log1p(-inside)
    log_det = (math.log(1.0 - 2.0 * LOGIT_MARGIN) - log_p - log_q).sum(axis=-1)
    return log_p - log_q, log_det


def negative_log_likelihood(outputs: Transformed, pixels: jax.Array) -> jax.Array:
    """Returns the mean of −ln p(256 · pixels) / d, float32, where a flow made `outputs` of stretched pixels."""
    noise, log_det = (output.astype(jnp.float32) for output in outputs)
    size = pixels.shape[-1]
    log_det = log_det + stretch(pixels.astype(jnp.float32))[1]
    log_normal = -0.5 * jnp.square(noise).sum(axis=-1) - 0.5 * math.log(2 * math.pi) * size
    return math.log(NUM_LEVELS) - jnp.mean(log_normal + log_det) / size
