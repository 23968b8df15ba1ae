"""Quadratics seen through minibatches: the mean of (aᵀ x)² over random input vectors a.

A problem has its own data set of standard normal vectors and starts from a standard normal point; the minimum is
zero, at x = 0, and there every minibatch has its minimum, so that the noise vanishes on the way.

[1] Wichrowska et al. 2017 (arXiv:1703.04813), Section 4.1.3: "the minibatch loss consisted of the square inner
product of the parameters with random input vectors", minibatches "from 10 to 200". Deviations from the release,
which sums (aᵢ xᵢ)² over coordinates and examples: the inner product of the text, and a mean, so that the batch size
changes the noise alone. Dimensions span the release's 12 to 64.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.types import Params, Scalar
from task_generator.distributions import Distribution, LogUniformInt
from task_generator.families.base import gradient_cost
from task_generator.families.synthetic import SyntheticConfig, full_precision


class Inputs(NamedTuple):
    """Input vectors: a problem's data set, or a batch of it."""

    inputs: jax.Array  # float32 [examples, n]


class MinibatchQuadraticConfig(SyntheticConfig):
    """A quadratic of `dimension` variables, the second moments of `num_examples` vectors."""

    has_examples: ClassVar[bool] = True

    family: Literal["minibatch_quadratic"] = "minibatch_quadratic"
    dimension: int = Field(ge=1, le=1024, description="Number of variables.")
    batch_size: int = Field(ge=1, le=4096, description="Examples per step.")
    num_examples: int = Field(1000, ge=1, le=100_000, description="Examples of a problem.")

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the priors."""
        return {
            "dimension": LogUniformInt(low=12, high=64),
            "batch_size": LogUniformInt(low=10, high=200),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns twelve variables and small batches."""
        return cls(dimension=12, batch_size=10, num_examples=200)

    def sample_problem(self, key: jax.Array) -> Inputs:
        """Draws the data set."""
        return Inputs(jax.random.normal(key, (self.num_examples, self.dimension), jnp.float32))

    def sample_start(self, key: jax.Array, problem: Inputs) -> Params:
        """Returns a standard normal point."""
        del problem
        return {"x": jax.random.normal(key, (self.dimension,), jnp.float32)}

    def draw(self, problem: Inputs, key: jax.Array) -> Inputs:
        """Returns examples drawn with replacement."""
        return Inputs(problem.inputs[jax.random.randint(key, (self.batch_size,), 0, self.num_examples)])

    def all_examples(self, problem: Inputs) -> Inputs:
        """Returns the data set."""
        return problem

    def objective(self, params: Params, problem: Inputs, batch: Inputs) -> Scalar:
        """Returns the mean of (aᵀ x)² over the batch."""
        del problem
        return jnp.mean(jnp.square(full_precision(batch.inputs) @ full_precision(params["x"])))

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        return gradient_cost(
            self.dimension, self.dimension, self.batch_size, values_per_example=self.dimension + 1, depth=1
        )

    def label(self) -> str:
        """Returns e.g. "minibatch quadratic 20 · batch 50"."""
        return f"minibatch quadratic {self.dimension} · batch {self.batch_size}"
