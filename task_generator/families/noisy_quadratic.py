"""The noisy quadratic model: a diagonal quadratic with a power law of curvatures and the gradient noise of a batch.

    loss ½ Σ hᵢ xᵢ², hᵢ = i^(−decay);        gradient shown H x + noise, covariance H / batch size

The noise's covariance is proportional to the Hessian, as in [2], where the curvatures are 1 / i for 10 000
variables. The minimum is zero, at zero, where constant steps cannot stay: the noise does not vanish. The start is
standard normal. Decay and batch size are dynamic, since neither changes the program.

[1] Almeida et al. 2021 (arXiv:2106.00958), App. H, lists the model with 1.4 % of its tasks and says nothing else;
the ranges are ours: 10 to 10 000 variables, decay uniform on [0.5, 1.5], batch size log-uniform on [1, 1000].
[2] Zhang et al. 2019 (arXiv:1907.04164), "Which algorithmic choices matter at which batch sizes?"
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.types import Batch, Params, PyTree, Scalar
from task_generator.distributions import Distribution, LogUniformInt
from task_generator.families.base import gradient_cost
from task_generator.families.synthetic import SyntheticConfig, full_precision

DECAY_RANGE = (0.5, 1.5)
BATCH_SIZE_RANGE = (1.0, 1000.0)


class Spectrum(NamedTuple):
    """The curvatures, and how many examples a gradient averages."""

    curvatures: jax.Array  # float32 [n]
    batch_size: jax.Array  # float32 []


class NoisyQuadraticConfig(SyntheticConfig):
    """A noisy quadratic of `dimension` variables."""

    family: Literal["noisy_quadratic"] = "noisy_quadratic"
    dimension: int = Field(ge=1, le=100_000, description="Number of variables.")
    decay: float | None = Field(
        None, ge=0, le=8, description="Fixes the power law's exponent; None draws it."
    )
    batch_size: float | None = Field(None, gt=0, description="Fixes the batch size; None draws it.")

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the prior of the size; the rest is dynamic."""
        return {"dimension": LogUniformInt(low=10, high=10_000)}

    @classmethod
    def example(cls) -> Self:
        """Returns a hundred variables."""
        return cls(dimension=100)

    def sample_problem(self, key: jax.Array) -> Spectrum:
        """Draws what is not fixed."""
        draws = jax.random.uniform(key, (2,), jnp.float32)
        low, high = DECAY_RANGE
        decay = low + (high - low) * draws[0] if self.decay is None else jnp.float32(self.decay)
        low, high = (math.log(bound) for bound in BATCH_SIZE_RANGE)
        drawn = jnp.exp(low + (high - low) * draws[1])
        batch_size = drawn if self.batch_size is None else jnp.float32(self.batch_size)
        logarithms = jnp.log(jnp.arange(1, self.dimension + 1, dtype=jnp.float32))
        return Spectrum(jnp.exp(-decay * logarithms), batch_size)

    def sample_start(self, key: jax.Array, problem: Spectrum) -> Params:
        """Returns a standard normal point."""
        del problem
        return {"x": jax.random.normal(key, (self.dimension,), jnp.float32)}

    def sample_noise(self, key: jax.Array, problem: Spectrum, start: Params) -> PyTree:
        """Returns the square roots of curvature / batch size."""
        del key, start
        return {"x": jnp.sqrt(problem.curvatures / problem.batch_size)}

    def objective(self, params: Params, problem: Spectrum, batch: Batch) -> Scalar:
        """Returns ½ Σ hᵢ xᵢ²."""
        del batch
        return 0.5 * jnp.sum(problem.curvatures * jnp.square(full_precision(params["x"])))

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether each fixed value lies in the range that is drawn from."""
        fixed = ((self.decay, DECAY_RANGE), (self.batch_size, BATCH_SIZE_RANGE))
        return all(value is None or low <= value <= high for value, (low, high) in fixed)

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        return gradient_cost(
            self.dimension, 2 * self.dimension, 1, values_per_example=3 * self.dimension, depth=1
        )

    def label(self) -> str:
        """Returns e.g. "noisy quadratic 100 · decay 1 · batch 16"."""
        decay = "" if self.decay is None else f" · decay {self.decay:g}"
        batch = "" if self.batch_size is None else f" · batch {self.batch_size:g}"
        return f"noisy quadratic {self.dimension}{decay}{batch}"
