"""Fully connected classifiers on flattened images.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3.1.
"""

from __future__ import annotations

import itertools
from typing import Literal, Self

from pydantic import Field

from task_generator.distributions import Distribution, LogUniformInt, UniformInt
from task_generator.families.base import gradient_cost
from task_generator.families.images import ClassificationConfig, image_prior
from task_generator.nn import Mlp


class MlpConfig(ClassificationConfig):
    """`num_layers` hidden layers of `hidden_size` units; no layer is logistic regression."""

    family: Literal["mlp"] = "mlp"
    hidden_size: int = Field(ge=1, le=4096, description="Units per hidden layer.")
    num_layers: int = Field(ge=0, le=32, description="Hidden layers.")

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the ranges of C.3.1."""
        return {
            "hidden_size": LogUniformInt(low=8, high=128),
            "num_layers": UniformInt(low=0, high=4),
            **image_prior(),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns two layers of 32 units on digits."""
        return cls(hidden_size=32, num_layers=2, image_size=8, batch_size=64, dataset="digits")

    def network(self) -> Mlp:
        """Returns the module."""
        return Mlp((self.hidden_size,) * self.num_layers, self.num_classes)

    def approximate_cost(self) -> dict[str, float]:
        """Returns `num_params` and `flops_per_step`."""
        sizes = [self.input_size, *[self.hidden_size] * self.num_layers, self.num_classes]
        products = sum(a * b for a, b in itertools.pairwise(sizes))
        return gradient_cost(products + sum(sizes[1:]), products, self.batch_size)

    def label(self) -> str:
        """Returns e.g. "mlp 2x32 · digits 8px · batch 64"."""
        return f"mlp {self.num_layers}x{self.hidden_size} · {self.data_label()}"
