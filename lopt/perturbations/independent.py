"""Gaussian directions drawn for each of the two twins by itself: what evolution strategies were before mirroring.

Kept to be compared with. A leave-one-out mean over the task's other lanes is subtracted from each loss, which
changes no expectation, since a direction is independent of the others' losses.

[1] Rechenberg 1973; Wierstra et al. 2014, Natural Evolution Strategies, 3.  [2] Kool et al. 2019, "Buy 4 REINFORCE
samples, get a baseline for free!" (the leave-one-out mean).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from lopt.perturbations.antithetic import normal_like, squared_norm
from lopt.perturbations.base import PerturbationConfig
from lopt.types import PRNGKey, Scalar, Theta


class IndependentConfig(PerturbationConfig):
    """Has no numbers of its own."""

    perturbation: Literal["independent"] = "independent"

    def sample(self, theta: Theta, key: PRNGKey, num_lanes: int) -> IndependentDraws:
        """Returns two unit-normal directions per lane, [num_lanes, 2, *leaf]."""
        return IndependentDraws(normal_like(theta, key, (num_lanes, 2)))


class IndependentDraws(NamedTuple):
    """`epsilon`: leaves [N, 2, *leaf]."""

    epsilon: Theta

    def twins(self, theta: Theta, sigma: float | Scalar) -> Theta:
        """Returns leaves [2, N, *leaf]."""
        return jax.tree.map(lambda t, e: t[None, None] + sigma * jnp.swapaxes(e, 0, 1), theta, self.epsilon)

    def weights(self, utilities: jax.Array) -> jax.Array:
        """Returns the utilities, [N, 2], each less the mean of all others of the task."""
        others = (jnp.sum(utilities) - utilities) / (utilities.size - 1)
        return utilities - others

    def weighted_sum(self, weights: jax.Array) -> Theta:
        """Returns Σ w ε over lanes and twins, a tree like theta, from weights [N, 2]."""
        return jax.tree.map(lambda e: jnp.tensordot(weights, e, axes=2), self.epsilon)

    def squared_norm(self, weights: jax.Array) -> Scalar:
        """Returns the squared norm of the sum, a scalar."""
        return squared_norm(self.weighted_sum(weights))

    def by_task(self, num_tasks: int) -> IndependentDraws:
        """Returns leaves [num_tasks, N / num_tasks, 2, *leaf]."""
        return jax.tree.map(lambda e: e.reshape(num_tasks, -1, *e.shape[1:]), self)

    def dense(self) -> IndependentDraws:
        """Returns itself."""
        return self
