"""What every family's configuration can do, and what is not a network but shared by several."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, ValidationError

from lopt.config import FrozenConfig
from lopt.types import TaskFamily
from task_generator.distributions import Distribution

NORMALIZED_CAP = 10.0
"""Where a normalised loss ends: ten times chance level. What is not finite maps there too."""


class FamilyConfig(FrozenConfig):
    """The static configuration of a task family: shapes, and whatever else selects a compiled program.

    Validation admits more than `prior` draws, because evaluation tasks are held out by lying outside it.
    """

    family: str

    has_examples: ClassVar[bool] = True
    """Whether a batch's leaves have a leading axis of independent examples, so that some can be left out."""

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the distribution of each field that sampling draws; the others keep their defaults."""
        raise NotImplementedError

    @classmethod
    def named_priors(cls) -> dict[str, dict[str, Distribution]]:
        """Returns other priors than the usual one, by the name that a task distribution asks for them with."""
        return {}

    @classmethod
    def example(cls) -> Self:
        """Returns a small configuration on embedded data: what galleries, benchmarks and tests start from."""
        raise NotImplementedError

    def build(self) -> TaskFamily:
        """Returns the family."""
        raise NotImplementedError

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether the dynamic priors could draw what this configuration fixes."""
        return True

    def approximate_cost(self) -> dict[str, float]:
        """Returns `num_params`, exact, and `flops_per_step` (one gradient of one batch, by counting products)."""
        raise NotImplementedError

    def label(self) -> str:
        """Returns a few words for a table."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ConfigPrior:
    """A prior over whole configurations of one family: for a family that contains another."""

    config_type: type[FamilyConfig]
    priors: tuple[tuple[str, Distribution], ...]

    def sample(self, rng: np.random.Generator) -> FamilyConfig:
        """Returns one draw; fields that do not go together are drawn again."""
        while True:
            with contextlib.suppress(ValidationError):
                return self.config_type.model_validate({name: p.sample(rng) for name, p in self.priors})

    def contains(self, value: Any) -> bool:
        """Returns whether `sample` could return `value`."""
        return (
            isinstance(value, self.config_type)
            and all(prior.contains(getattr(value, name)) for name, prior in self.priors)
            and value.overrides_could_be_sampled()
        )


class DataFamilyConfig(FamilyConfig):
    """A family that learns from a data set."""

    batch_size: int = Field(ge=1, le=4096, description="Examples per step.")
    dataset: str = Field(description="Name of a data set.")


def gradient_cost(num_params: int, products_per_example: int, batch_size: int) -> dict[str, float]:
    """Returns the cost of a gradient: two operations per product, forward and backward to both factors."""
    return {"num_params": float(num_params), "flops_per_step": float(6 * products_per_example * batch_size)}


def cap(normalized: jax.Array) -> jax.Array:
    """Returns the normalised loss, with everything above the cap, infinite or NaN at the cap."""
    return jnp.where(normalized < NORMALIZED_CAP, normalized, NORMALIZED_CAP)
