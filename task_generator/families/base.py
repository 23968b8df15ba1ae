"""What every image family's configuration has in common: its fields and their checks."""

from __future__ import annotations

from typing import Self

import jax
from pydantic import Field, model_validator

from lopt.config import FrozenConfig
from lopt.types import TaskFamily
from task_generator.datasets.images import DATASETS, DatasetName
from task_generator.distributions import Categorical, Distribution, LogUniformInt
from task_generator.dynamic import SAMPLED_ACTIVATIONS, SCALE_RANGE, ActivationName, NetworkDynamic
from task_generator.initializers import INITIALIZERS, InitializerName

MAX_BATCH_PIXELS = 2**26
"""Refuses a batch of more than 256 MiB: a slip of the pen, not a task."""


class FamilyConfig(FrozenConfig):
    """The static configuration of a task family: shapes, and whatever else selects a compiled program.

    Validation admits more than `prior` draws, because evaluation tasks are held out by lying outside it.
    """

    family: str

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the distribution of each field that sampling draws; the others keep their defaults."""
        raise NotImplementedError

    def build(self) -> TaskFamily:
        """Returns the family."""
        raise NotImplementedError

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether the dynamic priors could draw what this configuration fixes."""
        return True

    def approximate_cost(self) -> dict[str, float]:
        """Returns `num_params` and `flops_per_step` (one gradient of one batch, by counting products)."""
        raise NotImplementedError

    def label(self) -> str:
        """Returns a few words for a table."""
        raise NotImplementedError


class ImageFamilyConfig(FamilyConfig):
    """The fields of a network trained on images. The last three override what a dynamic draw would choose."""

    image_size: int = Field(ge=2, le=64, description="Side of the resized images, in pixels.")
    batch_size: int = Field(ge=1, le=4096, description="Examples per step.")
    dataset: DatasetName = Field(description="Name of an embedded data set.")
    activation: ActivationName | None = Field(None, description="Fixes the activation; None draws it.")
    initializer: InitializerName | None = Field(None, description="Fixes the initialiser; None draws it.")
    init_scale: float | None = Field(None, gt=0, description="Fixes the initial scale; None draws it.")

    @model_validator(mode="after")
    def _check_batch_fits(self) -> Self:
        pixels = self.batch_size * self.image_size**2 * DATASETS[self.dataset].channels
        if pixels > MAX_BATCH_PIXELS:
            raise ValueError(
                f"a batch may hold at most {MAX_BATCH_PIXELS} pixel values, got {pixels} from "
                f"batch_size={self.batch_size} and image_size={self.image_size}. Lower one of them."
            )
        return self

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether each override names something that the C.2 priors draw."""
        low, high = SCALE_RANGE
        return (
            self.activation in (None, *SAMPLED_ACTIVATIONS)
            and self.initializer in (None, *INITIALIZERS)
            and (self.init_scale is None or low <= self.init_scale <= high)
        )

    def resolve_init(self, dynamic: NetworkDynamic) -> tuple[str | jax.Array, float | jax.Array]:
        """Returns kind and scale of the initialisation: the overrides, and where there is none, the draw."""
        return (
            dynamic.initializer if self.initializer is None else self.initializer,
            dynamic.init_scale if self.init_scale is None else self.init_scale,
        )

    @property
    def input_size(self) -> int:
        """The numbers in one image."""
        return self.image_size**2 * DATASETS[self.dataset].channels

    def data_label(self) -> str:
        """Returns the data set, image side and batch size in a few words, and what is overridden."""
        fixed = [str(v) for v in (self.activation, self.initializer, self.init_scale) if v is not None]
        return " · ".join([f"{self.dataset} {self.image_size}px", f"batch {self.batch_size}", *fixed])


def image_prior() -> dict[str, Distribution]:
    """Returns the priors of image size, batch size and data set that C.3.1–C.3.3 share.

    The paper draws from five data sets that have to be downloaded; here, from the embedded ones.
    """
    return {
        "image_size": LogUniformInt(low=4, high=32),
        "batch_size": LogUniformInt(low=4, high=512),
        "dataset": Categorical(values=tuple(DATASETS)),
    }


def gradient_cost(num_params: int, products_per_example: int, batch_size: int) -> dict[str, float]:
    """Returns the cost of a gradient: two operations per product, forward and backward to both factors."""
    return {"num_params": float(num_params), "flops_per_step": float(6 * products_per_example * batch_size)}
