"""Variational auto-encoders on flattened images, trained on the negative evidence lower bound.

Encoder and decoder are fully connected nets, each with a mean and the logarithm of a deviation per output. The
prior over latents is standard normal and the divergence from it exact; one latent per image is drawn.

The observation model is a *quantised* normal: a pixel is one of 256 levels, and its probability, the normal
distribution's mass on the level's bin, is bounded by the mean of log(density · bin) over the bin, of which one
uniform draw is taken. The loss is thereby a bound on the nats of a lossless code, and not negative in expectation.

Normalised by the nats of the best model that ignores its latents: an independent normal per pixel, with the data's
mean and variance (and the bin's). So 1 is the best constant guess, whatever the data, centring and size.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3.4. Deviations from the release: centred data lie 2/255 apart and
so wide is their bin (there it stays 1/255, and the loss is no longer a code's); the normalised loss is relative, as
said (there, nats per pixel). As there, the decoder's outputs are clipped to ±10.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.types import PyTree, Scalar, Split
from task_generator.datasets.images import ImageDataset, ImageSplit, load
from task_generator.distributions import Distribution, LogUniformInt, UniformInt
from task_generator.dynamic import NETWORK_AXES, NetworkDynamic, sample_network_dynamic
from task_generator.families.base import cap, gradient_cost
from task_generator.families.images import ImageConfig, image_prior, switches_label
from task_generator.nn import Activation, Mlp

BIN = 1 / 255
OUTPUT_BOUND = 10.0


class VaeDynamic(NamedTuple):
    """One draw of the C.2 choices and C.3.4's two switches (bool [])."""

    network: NetworkDynamic
    center_data: jax.Array
    per_dim_loss: jax.Array


class VaeData(NamedTuple):
    """A data set, and the nats per pixel of the best model without latents."""

    images: ImageDataset
    constant_nats: jax.Array  # []


class VaeOutputs(NamedTuple):
    """Two normal distributions per image, and where in its bin each pixel is evaluated."""

    latent_mean: jax.Array  # [batch, latents]
    latent_log_std: jax.Array
    pixel_mean: jax.Array  # [batch, pixels]
    pixel_log_std: jax.Array
    offset: jax.Array  # [batch, pixels] in (−1/2, 1/2), in bins


class Vae(nn.Module):
    """Encoder, one latent per image, decoder; uses the rng "noise"."""

    enc_hidden_sizes: tuple[int, ...]
    dec_hidden_sizes: tuple[int, ...]
    latent_size: int

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> VaeOutputs:
        """Maps [batch, …] (flattened) to the parameters of both distributions."""
        x = x.reshape(x.shape[0], -1)
        encoded = Mlp(self.enc_hidden_sizes, 2 * self.latent_size, name="encoder")(x, activation)
        mean, log_std = jnp.split(encoded, 2, axis=-1)
        shape = (x.shape[0], self.latent_size + x.shape[1])
        edge = 1 - 2.0**-24  # the normal quantile of an end would be infinite
        # One draw for both: a generator costs compile time. Latents take its normal quantiles.
        draws = jax.random.uniform(self.make_rng("noise"), shape, jnp.float32, minval=-edge, maxval=1.0)
        uniform, offset = jnp.split(draws, [self.latent_size], axis=-1)
        normal = (jax.lax.erf_inv(uniform) * math.sqrt(2.0)).astype(x.dtype)
        decoder = Mlp(self.dec_hidden_sizes, 2 * x.shape[1], name="decoder")
        decoded = decoder(mean + jnp.exp(log_std) * normal, activation)
        pixel_mean, pixel_log_std = jnp.split(jnp.clip(decoded, -OUTPUT_BOUND, OUTPUT_BOUND), 2, axis=-1)
        return VaeOutputs(mean, log_std, pixel_mean, pixel_log_std, 0.5 * offset)


def kl_to_standard_normal(mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Returns the divergence of N(mean, exp(log_std)²) from N(0, 1), elementwise, in nats."""
    return 0.5 * (jnp.exp(2.0 * log_std) + jnp.square(mean) - 1.0) - log_std


def normal_nats(x: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Returns −log of the normal density at x, elementwise."""
    return 0.5 * (jnp.square((x - mean) * jnp.exp(-log_std)) + math.log(2 * math.pi)) + log_std


class VaeConfig(ImageConfig):
    """Fully connected encoder and decoder around `latent_size` latents."""

    family: Literal["vae"] = "vae"
    enc_hidden_size: int = Field(ge=1, le=4096, description="Units per hidden layer of the encoder.")
    dec_hidden_size: int = Field(ge=1, le=4096, description="Units per hidden layer of the decoder.")
    enc_num_layers: int = Field(ge=0, le=32, description="Hidden layers of the encoder.")
    dec_num_layers: int = Field(ge=0, le=32, description="Hidden layers of the decoder.")
    latent_size: int = Field(ge=1, le=4096, description="Latents per image.")
    center_data: bool | None = Field(None, description="Pixels in [-1, 1], not [0, 1]; None draws it.")
    per_dim_loss: bool | None = Field(None, description="The loss per pixel, not per image; None draws it.")

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the ranges of C.3.4."""
        return {
            "enc_hidden_size": LogUniformInt(low=4, high=128),
            "dec_hidden_size": LogUniformInt(low=4, high=128),
            "enc_num_layers": UniformInt(low=0, high=4),
            "dec_num_layers": UniformInt(low=0, high=4),
            "latent_size": LogUniformInt(low=2, high=128),
            **image_prior(),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns one layer of 32 units on either side of 8 latents, on digits."""
        return cls(
            enc_hidden_size=32,
            dec_hidden_size=32,
            enc_num_layers=1,
            dec_num_layers=1,
            latent_size=8,
            image_size=8,
            batch_size=64,
            dataset="digits",
        )

    def network(self) -> Vae:
        """Returns the module."""
        encoder = (self.enc_hidden_size,) * self.enc_num_layers
        return Vae(encoder, (self.dec_hidden_size,) * self.dec_num_layers, self.latent_size)

    def load_data(self) -> VaeData:
        """Returns the data set and the nats per pixel of the best model without latents.

        A normal of deviation s on values of variance v, spread over their bins, costs at least, in the mean,
        ln(s / bin) + ln(2π)/2 + 1/2 nats, where s² = v + bin²/12.
        """
        images = load(self.dataset, self.image_size)
        pixels = images.train.images.astype(jnp.float32) / 255
        bins = pixels.var(axis=0) / BIN**2 + 1 / 12
        return VaeData(images, 0.5 * (jnp.log(bins).mean() + math.log(2 * math.pi) + 1.0))

    def draw(self, data: PyTree, key: jax.Array, split: Split) -> ImageSplit:
        """Returns images [batch, side, side, channels] in [0, 1] (the labels go unused)."""
        held: VaeData = data
        return held.images.batch(key, split, self.batch_size)

    def sample_dynamic(self, key: jax.Array) -> VaeDynamic:
        """Draws the C.2 choices, and each switch with probability 1/2 unless it is fixed."""
        network_key, switch_key = jax.random.split(key)
        drawn = jax.random.bernoulli(switch_key, 0.5, (2,))
        fixed = (self.center_data, self.per_dim_loss)
        switches = [drawn[i] if value is None else jnp.asarray(value) for i, value in enumerate(fixed)]
        return VaeDynamic(sample_network_dynamic(network_key), *switches)

    def dynamic_axes(self) -> VaeDynamic:
        """Returns None for what selects code, 0 for what is one per task."""
        return VaeDynamic(NETWORK_AXES, 0, 0)  # type: ignore[arg-type]

    def network_dynamic(self, dynamic: VaeDynamic) -> NetworkDynamic:
        """Returns the C.2 choices."""
        return dynamic.network

    def inputs(self, batch: ImageSplit, dynamic: VaeDynamic) -> jax.Array:
        """Returns the images as vectors, centred if so drawn."""
        images = batch.images.reshape(batch.images.shape[0], -1)
        return jnp.where(dynamic.center_data, 2.0 * images - 1.0, images)

    def loss(self, outputs: VaeOutputs, batch: ImageSplit, dynamic: VaeDynamic) -> Scalar:
        """Returns the negative evidence lower bound in nats, per image or per pixel, averaged over the batch."""
        latent_mean, latent_log_std, mean, log_std, offset = (x.astype(jnp.float32) for x in outputs)
        width = jnp.where(dynamic.center_data, 2 * BIN, BIN)
        pixels = self.inputs(batch, dynamic).astype(jnp.float32) + width * offset
        nats = normal_nats(pixels, mean, log_std).mean(axis=0).sum() - self.input_size * jnp.log(width)
        bound = nats + kl_to_standard_normal(latent_mean, latent_log_std).mean(axis=0).sum()
        return bound / jnp.where(dynamic.per_dim_loss, float(self.input_size), 1.0)

    def normalize(self, loss: Scalar, data: VaeData, dynamic: VaeDynamic) -> Scalar:
        """Returns the nats over those of the best model without latents, capped."""
        return cap(loss / (data.constant_nats * jnp.where(dynamic.per_dim_loss, 1.0, float(self.input_size))))

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        encoder = [self.input_size, *[self.enc_hidden_size] * self.enc_num_layers, 2 * self.latent_size]
        decoder = [self.latent_size, *[self.dec_hidden_size] * self.dec_num_layers, 2 * self.input_size]
        products = sum(a * b for sizes in (encoder, decoder) for a, b in itertools.pairwise(sizes))
        biases = sum(encoder[1:]) + sum(decoder[1:])
        return gradient_cost(
            products + biases,
            products,
            self.batch_size,
            inputs_per_example=self.input_size,
            values_per_example=sum(encoder[1:]) + sum(decoder),
            depth=len(encoder) + len(decoder) - 2,
        )

    def overrides_label(self) -> str:
        """Returns what is overridden, in a few words."""
        switches = switches_label(self, "center_data", "per_dim_loss")
        return " · ".join(part for part in (super().overrides_label(), switches) if part)

    def label(self) -> str:
        """Returns e.g. "vae 1x32-8-1x32 · digits 8px · batch 64": encoder, latents, decoder."""
        encoder = f"{self.enc_num_layers}x{self.enc_hidden_size}"
        decoder = f"{self.dec_num_layers}x{self.dec_hidden_size}"
        return f"vae {encoder}-{self.latent_size}-{decoder} · {self.data_label()}"
