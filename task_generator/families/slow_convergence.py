"""Small problems on which progress can only be slow.

    valley    1 / ‖x‖ + Σ (xᵢ₊₁ − π cos xᵢ)²        a winding path outwards: the infimum, zero, is at infinity
    chain     x₀² + Σ xᵢ₊₁² / (xᵢ² + 10⁻⁶)          zero at x = 0; the last variables must get there first
    min_max   max xᵢ² + 1 / min xᵢ² − 2             zero where all |xᵢ| = 1; two variables have a gradient

All start from a standard normal point.

[1] Wichrowska et al. 2017 (arXiv:1703.04813), Section 4.1.4: "a many-dimensional oscillating valley whose global
minimum lies at infinity", "very strong coupling terms between parameters in a sequence", a loss that "only depends
on the minimum and maximum valued parameter". The text has no formulas; these are the release's, in which minimum
and maximum are of the absolute values. Deviations from it: the valley is the whole sum, which the release masks at
random from step to step, and its radius is kept off zero inside the root, where the derivative needs it. Dimensions
span the release's 12 to 64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Self

import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.registry import lookup
from lopt.types import Batch, Params, PyTree, Scalar
from task_generator.distributions import Categorical, Distribution, LogUniformInt
from task_generator.families.base import gradient_cost
from task_generator.families.synthetic import NoisyConfig, full_precision, noise_prior

TINY = 1e-6


def oscillating_valley(x: jax.Array) -> jax.Array:
    """Returns 1 / ‖x‖ + Σ (xᵢ₊₁ − π cos xᵢ)²."""
    outwards = jax.lax.rsqrt(jnp.sum(jnp.square(x)) + TINY**2)
    return outwards + jnp.sum(jnp.square(x[1:] - jnp.pi * jnp.cos(x[:-1])))


def coupled_chain(x: jax.Array) -> jax.Array:
    """Returns x₀² + Σ xᵢ₊₁² / (xᵢ² + 10⁻⁶)."""
    squares = jnp.square(x)
    return squares[0] + jnp.sum(squares[1:] / (squares[:-1] + TINY))


def min_max(x: jax.Array) -> jax.Array:
    """Returns max xᵢ² + 1 / min xᵢ² − 2."""
    squares = jnp.square(x)
    return jnp.max(squares) + 1.0 / jnp.min(squares) - 2.0


PROBLEMS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "valley": oscillating_valley,
    "chain": coupled_chain,
    "min_max": min_max,
}

if TYPE_CHECKING:
    ProblemName = str
else:  # the names are the registry's keys
    ProblemName = Literal[tuple(PROBLEMS)]


class SlowConvergenceConfig(NoisyConfig):
    """One of the three problems."""

    family: Literal["slow_convergence"] = "slow_convergence"
    problem: ProblemName = Field(description="Which of the three.")
    dimension: int = Field(ge=2, le=4096, description="Number of variables.")

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the priors."""
        return {
            "problem": Categorical(values=tuple(PROBLEMS)),
            "dimension": LogUniformInt(low=12, high=64),
            **noise_prior(),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns a valley in twelve dimensions."""
        return cls(problem="valley", dimension=12)

    def sample_problem(self, key: jax.Array) -> PyTree:
        """Returns nothing: problems differ by where they start."""
        del key
        return ()

    def sample_start(self, key: jax.Array, problem: PyTree) -> Params:
        """Returns a standard normal point."""
        del problem
        return {"x": jax.random.normal(key, (self.dimension,), jnp.float32)}

    def objective(self, params: Params, problem: PyTree, batch: Batch) -> Scalar:
        """Returns the formula's value."""
        del problem, batch
        return lookup(PROBLEMS, self.problem, kind="problem")(full_precision(params["x"]))

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        return gradient_cost(
            self.dimension, 5 * self.dimension, 1, values_per_example=3 * self.dimension, depth=1
        )

    def label(self) -> str:
        """Returns e.g. "slow chain 20"."""
        return f"slow {self.problem} {self.dimension}{self.noise_label()}"
