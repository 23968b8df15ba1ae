"""What every way to perturb theta can do: draw directions, place both twins, add up what directions were worth.

A direction has unit variance in every coordinate and no correlation between coordinates; the twins of lane n are

    θ + σ ε⁺ₙ   and   θ + σ ε⁻ₙ,   for antithetic strategies ε⁻ₙ = −ε⁺ₙ

so with L the smoothed meta-loss, E[(L⁺ε⁺ + L⁻ε⁻) / 2σ] is its gradient (to first order in σ² where the
directions are not Gaussian).
"""

from __future__ import annotations

from typing import Protocol, Self

import jax

from lopt.config import FrozenConfig
from lopt.types import PRNGKey, Scalar, Theta


class Directions(Protocol):
    """N lanes' directions: a pytree whose leaves have the lane axis N where the strategy says."""

    def twins(self, theta: Theta, sigma: float | Scalar) -> Theta:
        """Returns both twins of every lane: leaves [2, N, *leaf]."""
        ...

    def weights(self, utilities: jax.Array) -> jax.Array:
        """Returns what one task's utilities [N, 2] weigh its directions by, [N, 2]."""
        ...

    def weighted_sum(self, weights: jax.Array) -> Theta:
        """Returns Σₙ (w⁺ₙ ε⁺ₙ + w⁻ₙ ε⁻ₙ), a tree like theta, from weights [N, 2]."""
        ...

    def squared_norm(self, weights: jax.Array) -> Scalar:
        """Returns the squared Euclidean norm of `weighted_sum`, a scalar, where possible without computing that."""
        ...

    def by_task(self, num_tasks: int) -> Self:
        """Returns the same directions with the lane axis split in two, [num_tasks, N / num_tasks], the first in
        front: what a `vmap` over axis 0 takes apart into each task's directions.
        """
        ...

    def dense(self) -> Directions:
        """Returns the same directions as plain arrays, which can be added to others."""
        ...


class PerturbationConfig(FrozenConfig):
    """Which strategy; `perturbation` names it."""

    @property
    def factor_rank(self) -> int | None:
        """Rank of a large weight's direction, where that is drawn as two thin factors; None: every number is."""
        return None

    def sample(self, theta: Theta, key: PRNGKey, num_lanes: int) -> Directions:
        """Returns the directions of `num_lanes` lanes in the space of theta."""
        raise NotImplementedError
