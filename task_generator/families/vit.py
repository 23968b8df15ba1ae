"""Vision transformers: patches and a class token through pre-norm encoder layers, on images.

Nothing is dynamic: gelu, kernels uniform as Xavier's (the patch embedding's normal with variance 1 / fan_in, biases
within the layers normal with deviation 1e-6), positions normal with deviation 0.02; class token and head start at
zero. A patch larger than the image is refused (in the release it leaves the class token alone, which sees nothing).
A patch that does not divide the image is allowed, as in [2]: the rows and columns that fill no patch are cropped.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3.8  [2] google-research/vision_transformer (Apache-2.0)

The prior's dropout: with probability 0.7 there is dropout, at a rate uniform on [0, 0.8], and on attention at a
rate "between 0 and 0.8 on a log scale", which cannot reach 0: here log-uniform on [0.001, 0.8]; otherwise both are
0. One switch for both is the release's reading of [1]'s list. Deviations from the release, towards [1]: images from
4 pixels (there, 8), head size uniform (there, log-uniform), attention dropout on a log scale (there, uniform).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from lopt.config import FrozenConfig
from task_generator.distributions import (
    Categorical,
    Distribution,
    LogUniform,
    LogUniformInt,
    Uniform,
    UniformInt,
)
from task_generator.dynamic import ActivationName
from task_generator.families.base import gradient_cost
from task_generator.families.images import ClassificationConfig, image_prior
from task_generator.families.network import NothingDrawn
from task_generator.initializers import LeafInit, default_leaf_init
from task_generator.networks.vit import VisionTransformer


class Heads(FrozenConfig):
    """How the hidden size is divided: `num` attention heads of `size` numbers each."""

    num: int = Field(ge=1, le=64, description="Attention heads.")
    size: int = Field(ge=1, le=256, description="Hidden units per head.")


class Dropout(FrozenConfig):
    """What fractions are dropped."""

    rate: float = Field(0.0, ge=0, lt=1, description="Of embeddings, attention outputs and hidden units.")
    attention_rate: float = Field(0.0, ge=0, lt=1, description="Of attention weights.")


@dataclasses.dataclass(frozen=True)
class HeadsPrior:
    """A number of heads, then their size, whose range depends on whether there are fewer than 4."""

    num: LogUniformInt
    size_of_few: UniformInt
    size_of_many: UniformInt

    def _sizes(self, num: int) -> UniformInt:
        return self.size_of_few if num < 4 else self.size_of_many

    def sample(self, rng: np.random.Generator) -> dict[str, int]:
        """Returns one draw."""
        num = self.num.sample(rng)
        return {"num": num, "size": self._sizes(num).sample(rng)}

    def contains(self, value: Any) -> bool:
        """Returns whether `sample` could return `value`, `Heads` or its fields."""
        heads = Heads.model_validate(value)
        return self.num.contains(heads.num) and self._sizes(heads.num).contains(heads.size)


@dataclasses.dataclass(frozen=True)
class DropoutPrior:
    """With `probability`, a rate and an attention rate from their priors; otherwise none of either."""

    probability: float
    rate: Uniform
    attention_rate: LogUniform

    def sample(self, rng: np.random.Generator) -> dict[str, float]:
        """Returns one draw."""
        if rng.random() >= self.probability:
            return {"rate": 0.0, "attention_rate": 0.0}
        return {"rate": self.rate.sample(rng), "attention_rate": self.attention_rate.sample(rng)}

    def contains(self, value: Any) -> bool:
        """Returns whether `sample` could return `value`, `Dropout` or its fields."""
        dropout = Dropout.model_validate(value)
        return dropout == Dropout() or (
            self.rate.contains(dropout.rate) and self.attention_rate.contains(dropout.attention_rate)
        )


class VitConfig(NothingDrawn, ClassificationConfig):
    """`num_layers` encoder layers of heads.num · heads.size hidden units over patches of `patch_size`² pixels."""

    family: Literal["vit"] = "vit"
    num_layers: int = Field(ge=1, le=64, description="Encoder layers.")
    heads: Heads = Field(description="Attention heads; their number times their size is the hidden size.")
    mlp_dim: int = Field(ge=1, le=8192, description="Hidden units of each layer's fully connected part.")
    patch_size: int = Field(ge=1, le=64, description="Side of a patch, in pixels.")
    dropout: Dropout = Field(Dropout(), description="Fractions dropped.")
    activation: ActivationName = Field("gelu", description="Between the two fully connected layers.")
    initializer: Literal["xavier_uniform"] = Field("xavier_uniform", description="How kernels start.")
    init_scale: float = Field(1.0, gt=0, description="Multiplies the kernels' start.")

    @model_validator(mode="after")
    def _check_patch(self) -> Self:
        check_patch_fits(self.patch_size, self.image_size)
        return self

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the ranges of C.3.8."""
        return {
            "num_layers": LogUniformInt(low=1, high=16),
            "heads": HeadsPrior(
                num=LogUniformInt(low=1, high=16),
                size_of_few=UniformInt(low=8, high=64),
                size_of_many=UniformInt(low=8, high=32),
            ),
            "mlp_dim": LogUniformInt(low=32, high=512),
            "patch_size": Categorical(values=(2, 4, 8, 12, 16)),
            "dropout": DropoutPrior(
                probability=0.7,
                rate=Uniform(low=0.0, high=0.8),
                attention_rate=LogUniform(low=1e-3, high=0.8),
            ),
            **image_prior(),
            "image_size": LogUniformInt(low=4, high=64),
            "batch_size": LogUniformInt(low=4, high=256),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns one layer with two heads of 8 on the quarters of digits."""
        return cls(
            num_layers=1,
            heads=Heads(num=2, size=8),
            mlp_dim=32,
            patch_size=4,
            image_size=8,
            batch_size=16,
            dataset="digits",
        )

    @property
    def hidden_size(self) -> int:
        """Numbers per token."""
        return self.heads.num * self.heads.size

    @property
    def num_patches(self) -> int:
        """Patches per image."""
        return (self.image_size // self.patch_size) ** 2

    def network(self) -> VisionTransformer:
        """Returns the module."""
        return VisionTransformer(
            self.patch_size,
            self.hidden_size,
            self.num_layers,
            self.heads.num,
            self.mlp_dim,
            self.dropout.rate,
            self.dropout.attention_rate,
            self.num_classes,
        )

    def leaf_init(self, path: str, shape: tuple[int, ...]) -> LeafInit:
        """Returns how [2] starts each parameter."""
        if path == "position_embedding":
            return LeafInit("normal", 0.02)
        if path == "class_token" or path.startswith("head/"):
            return LeafInit("constant", 0.0)
        if path == "embedding/kernel":
            return LeafInit("normal", self.init_scale * math.prod(shape[:-1]) ** -0.5)
        if path.endswith(("mlp_in/bias", "mlp_out/bias")):
            return LeafInit("normal", 1e-6)
        if path.endswith("/kernel"):  # an attention kernel is a matrix with one side cut into heads
            fan_sum = self.hidden_size + (self.mlp_dim if "/mlp_" in path else self.hidden_size)
            return LeafInit("uniform", self.init_scale * math.sqrt(6.0 / fan_sum))
        return LeafInit("constant", 0.0) if path.endswith("bias") else default_leaf_init(path, shape)

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether the network is what [2] has."""
        return self.activation == "gelu" and self.init_scale == 1.0

    def overrides_label(self) -> str:
        """Returns the activation, if it is not the usual one."""
        return "" if self.activation == "gelu" else self.activation

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        hidden, tokens = self.hidden_size, self.num_patches + 1
        embedding = self.patch_size**2 * self.channels * hidden
        kernels = 4 * hidden * hidden + 2 * hidden * self.mlp_dim
        head = hidden * self.num_classes
        layer = kernels + 4 * hidden + self.mlp_dim + hidden + 4 * hidden  # biases, then two norms
        outside = embedding + hidden + hidden + tokens * hidden + 2 * hidden + head + self.num_classes
        products = (
            self.num_patches * embedding
            + self.num_layers * (tokens * kernels + 2 * tokens * tokens * hidden)
            + head
        )
        block_values = (
            10 * hidden + self.mlp_dim + self.heads.num * tokens
        )  # of a token: norms, q, k, v, scores, …
        return gradient_cost(
            outside + self.num_layers * layer,
            products,
            self.batch_size,
            inputs_per_example=self.input_size,
            values_per_example=tokens * (hidden + self.num_layers * block_values),
            rows_per_example=tokens * (1 + 6 * self.num_layers),
            depth=2 + 6 * self.num_layers,
        )

    def label(self) -> str:
        """Returns e.g. "vit 1x16 · patch 4 · digits 8px · batch 16": one layer, 16 hidden units."""
        return f"vit {self.num_layers}x{self.hidden_size} · patch {self.patch_size} · {self.data_label()}"


def check_patch_fits(patch_size: int, image_size: int) -> None:
    """Refuses a patch that is larger than the image.

    Raises:
      ValueError: If it is; names both.
    """
    if patch_size > image_size:
        raise ValueError(
            f"a patch must fit the image, got patch_size={patch_size} and image_size={image_size}: no patch would "
            "be left. Lower `patch_size` or raise `image_size`."
        )
