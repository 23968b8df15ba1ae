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
        """Returns `num_params` (exact), `flops_per_step`, `values_per_step` and `depth`; see `gradient_cost`.

        From the fields alone: run-time models ask for this thousands of times a second.
        """
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


def gradient_cost(
    num_params: int,
    products_per_example: int,
    batch_size: int,
    *,
    inputs_per_example: int = 0,
    values_per_example: int,
    rows_per_example: int | None = None,
    reads_per_example: int | None = None,
    depth: int,
) -> dict[str, float]:
    """Returns the cost of a gradient: two operations per product, forward and backward to both factors.

    Args:
      num_params: Exact.
      products_per_example: Multiplications by weights, or of activations, in a forward pass.
      batch_size: Examples.
      inputs_per_example: Numbers that an example consists of.
      values_per_example: Numbers that the layers of a forward pass write: what goes through activations.
      rows_per_example: Rows that weights are multiplied with; None is one per unit of depth.
      reads_per_example: Numbers in those rows, a pixel's whole neighbourhood where a layer convolves; None where
        they are about the inputs and the values.
      depth: Layers times time steps: products that wait for one another.
    """
    return {
        "num_params": float(num_params),
        "examples_per_step": float(batch_size),
        "flops_per_step": float(6 * products_per_example * batch_size),
        "inputs_per_step": float(inputs_per_example * batch_size),
        "values_per_step": float(values_per_example * batch_size),
        "rows_per_step": float((depth if rows_per_example is None else rows_per_example) * batch_size),
        "reads_per_step": float((reads_per_example or inputs_per_example + values_per_example) * batch_size),
        "depth": float(depth),
    }


def cap(normalized: jax.Array) -> jax.Array:
    """Returns the normalised loss, with everything above the cap, infinite or NaN at the cap."""
    return jnp.where(normalized < NORMALIZED_CAP, normalized, NORMALIZED_CAP)
