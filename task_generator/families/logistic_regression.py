"""Logistic regression on random data, linearly separable or not, on all examples or on minibatches.

A problem draws a direction u and a margin; inputs are standard normal, labelled by the side of the plane uᵀ x = 0
they lie on and moved away from it by the margin: separable, so that the infimum of the loss is zero, at infinity.
Otherwise, a fifth of the examples are contradictions: inputs that occur twice, with both labels. Two such examples
have a mean loss of at least log 2 whatever the parameters, so that 0.2 log 2 bounds the loss of the whole data set;
the minimum lies above, depending on the data, and is not known.

[1] Wichrowska et al. 2017 (arXiv:1703.04813), Sections 4.1.2 and 4.1.3: "randomly generated, generally linearly
separable data", minibatches "from 10 to 200". Features span the release's 10 to 256. Deviations: the release's data
are scikit-learn's `make_classification`, and it adds a small weight decay, with which the minimum would not be
zero. Weights start as there, with standard deviation 1.2 / √n; the bias at zero. As there, noise may come on top
of minibatches.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.types import Params, Scalar
from task_generator.distributions import Categorical, Distribution, LogUniformInt
from task_generator.families.base import gradient_cost
from task_generator.families.synthetic import NoisyConfig, full_precision, noise_prior

MARGIN_RANGE = (0.1, 2.0)
CONTRADICTIONS = 5
"""One in this many examples is part of a contradiction where the data are not separable."""


class Examples(NamedTuple):
    """Inputs and labels: a problem's data set, or a batch of it."""

    inputs: jax.Array  # float32 [examples, n]
    labels: jax.Array  # float32 [examples], −1 or 1


class LogisticRegressionConfig(NoisyConfig):
    """`num_features` weights and a bias."""

    has_examples: ClassVar[bool] = True

    family: Literal["logistic_regression"] = "logistic_regression"
    num_features: int = Field(ge=1, le=4096, description="Length of an input.")
    num_examples: int = Field(1000, ge=10, le=100_000, description="Examples of a problem.")
    separable: bool = Field(True, description="Whether a plane separates the classes.")
    batch_size: int | None = Field(
        ge=1, le=4096, description="Examples per step; None: all of them, without drawing."
    )

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the priors; data are separable four times in five ("generally")."""
        return {
            "num_features": LogUniformInt(low=10, high=256),
            "separable": Categorical(values=(True, False), weights=(0.8, 0.2)),
            "batch_size": Categorical(values=(None, 10, 20, 50, 100, 200)),
            **noise_prior(),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns ten features and minibatches of 20."""
        return cls(num_features=10, num_examples=200, separable=False, batch_size=20)

    @property
    def num_pairs(self) -> int:
        """Contradictions in the data set."""
        return 0 if self.separable else self.num_examples // (2 * CONTRADICTIONS)

    def sample_problem(self, key: jax.Array) -> Examples:
        """Draws the data set."""
        normal_key, margin_key = jax.random.split(key)
        normal = jax.random.normal(normal_key, (self.num_examples + 1, self.num_features), jnp.float32)
        inputs, direction = normal[:-1], normal[-1] / jnp.linalg.norm(normal[-1])
        margin = jax.random.uniform(margin_key, (), jnp.float32, *MARGIN_RANGE)
        labels = jnp.where(inputs @ direction > 0, 1.0, -1.0)
        inputs += (margin * labels)[:, None] * direction[None, :]
        if pairs := self.num_pairs:
            inputs = jnp.concatenate([inputs[:-pairs], inputs[:pairs]])
            labels = jnp.concatenate([labels[:-pairs], -labels[:pairs]])
        return Examples(inputs, labels)

    def sample_start(self, key: jax.Array, problem: Examples) -> Params:
        """Returns random weights and a bias of zero."""
        del problem
        weights = jax.random.normal(key, (self.num_features,), jnp.float32)
        return {"weights": 1.2 / math.sqrt(self.num_features) * weights, "bias": jnp.zeros((), jnp.float32)}

    def draw(self, problem: Examples, key: jax.Array) -> Examples:
        """Returns examples drawn with replacement, or all."""
        if self.batch_size is None:
            return problem
        chosen = jax.random.randint(key, (self.batch_size,), 0, self.num_examples)
        return Examples(problem.inputs[chosen], problem.labels[chosen])

    def all_examples(self, problem: Examples) -> Examples:
        """Returns the data set."""
        return problem

    def objective(self, params: Params, problem: Examples, batch: Examples) -> Scalar:
        """Returns the mean of log(1 + exp(−label · logit))."""
        del problem
        params, batch = full_precision(params), full_precision(batch)
        logits = batch.inputs @ params["weights"] + params["bias"]
        return jnp.mean(jax.nn.softplus(-batch.labels * logits))

    def lower_bound(self) -> float:
        """Returns log 2 for each example in a contradiction, over all examples."""
        return 2 * self.num_pairs / self.num_examples * math.log(2)

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        size = self.num_features
        return gradient_cost(
            size + 1, size, self.batch_size or self.num_examples, values_per_example=size + 1, depth=1
        )

    def label(self) -> str:
        """Returns e.g. "logistic regression 10 · not separable · batch 20"."""
        kind = "" if self.separable else " · not separable"
        batch = "all examples" if self.batch_size is None else f"batch {self.batch_size}"
        return f"logistic regression {self.num_features}{kind} · {batch}{self.noise_label()}"
