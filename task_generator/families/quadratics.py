"""Quadratic bowls with random couplings: ½ ‖W x − y‖², W and y standard normal, from a standard normal start.

The minimum is zero, at W⁻¹ y. Because W is square, the Hessian's condition number is of the order of n² for n
variables, and often far above.

[1] Wichrowska et al. 2017 (arXiv:1703.04813), Sections 4.1.2 and 4.1.3. The formula is the release's; the paper
says "quadratic bowls of varying dimension with randomly generated coupling matrices".
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.types import Batch, Params, Scalar
from task_generator.distributions import Distribution, LogUniformInt
from task_generator.families.base import gradient_cost
from task_generator.families.synthetic import NoisyConfig, full_precision, noise_prior


class Bowl(NamedTuple):
    """The couplings and the target of ½ ‖W x − y‖²."""

    coupling: jax.Array  # float32 [n, n]
    target: jax.Array  # float32 [n]


class QuadraticConfig(NoisyConfig):
    """A quadratic of `dimension` variables."""

    family: Literal["quadratic"] = "quadratic"
    dimension: int = Field(ge=1, le=4096, description="Number of variables.")

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the priors; the release has 3 to 100 variables in training."""
        return {"dimension": LogUniformInt(low=3, high=100), **noise_prior()}

    @classmethod
    def example(cls) -> Self:
        """Returns ten variables without noise."""
        return cls(dimension=10)

    def sample_problem(self, key: jax.Array) -> Bowl:
        """Draws couplings and target."""
        n = self.dimension
        drawn = jax.random.normal(key, (n + 1, n), jnp.float32)
        return Bowl(drawn[:n], drawn[n])

    def sample_start(self, key: jax.Array, problem: Bowl) -> Params:
        """Returns a standard normal point."""
        del problem
        return {"x": jax.random.normal(key, (self.dimension,), jnp.float32)}

    def objective(self, params: Params, problem: Bowl, batch: Batch) -> Scalar:
        """Returns ½ ‖W x − y‖²."""
        del batch
        return 0.5 * jnp.sum(jnp.square(problem.coupling @ full_precision(params["x"]) - problem.target))

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        return gradient_cost(
            self.dimension, self.dimension**2, 1, values_per_example=2 * self.dimension, depth=1
        )

    def label(self) -> str:
        """Returns e.g. "quadratic 20 · noise"."""
        return f"quadratic {self.dimension}{self.noise_label()}"
