"""Antithetic Gaussian pairs: twins at θ + σε and θ − σε that share everything else.

What the meta-loss has of even order cancels in the difference of the twins, which is most of the variance.

[1] Salimans et al. 2017, arXiv:1703.03864, 2.1 (mirrored sampling).  [2] Metz et al. 2022, VeLO, App. D.1.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from lopt.perturbations.base import PerturbationConfig
from lopt.types import PRNGKey, Scalar, Theta


class AntitheticConfig(PerturbationConfig):
    """Has no numbers of its own."""

    perturbation: Literal["antithetic"] = "antithetic"

    def sample(self, theta: Theta, key: PRNGKey, num_lanes: int) -> AntitheticPairs:
        """Returns one unit-normal direction per lane, [num_lanes, *leaf]; the other twin has its negative."""
        return AntitheticPairs(normal_like(theta, key, (num_lanes,)))


class AntitheticPairs(NamedTuple):
    """`epsilon`: a tree like theta whose leaves have a leading lane axis [N, *leaf]."""

    epsilon: Theta

    def twins(self, theta: Theta, sigma: float | Scalar) -> Theta:
        """Returns leaves [2, N, *leaf], index 0 at θ + σε, index 1 at θ − σε."""
        return jax.tree.map(
            lambda t, e: jnp.stack([t[None] + sigma * e, t[None] - sigma * e]), theta, self.epsilon
        )

    def weights(self, utilities: jax.Array) -> jax.Array:
        """Returns the utilities, [N, 2]."""
        return utilities

    def weighted_sum(self, weights: jax.Array) -> Theta:
        """Returns Σ (w⁺ − w⁻) ε, a tree like theta, from weights [N, 2]."""
        difference = weights[:, 0] - weights[:, 1]
        return jax.tree.map(lambda e: jnp.tensordot(difference, e, axes=1), self.epsilon)

    def squared_norm(self, weights: jax.Array) -> Scalar:
        """Returns wᵀGw with the products G [N, N] of few directions, or that norm of the sum of many: a scalar."""
        difference = weights[:, 0] - weights[:, 1]
        if len(difference) > MAX_GRAM:
            return squared_norm(self.weighted_sum(weights))
        flat = [e.reshape(len(difference), -1) for e in jax.tree.leaves(self.epsilon)]
        gram = jnp.stack([e @ e.T for e in flat]).sum(axis=0)
        return difference @ gram @ difference

    def by_task(self, num_tasks: int) -> AntitheticPairs:
        """Returns leaves [num_tasks, N / num_tasks, *leaf]."""
        return jax.tree.map(lambda e: e.reshape(num_tasks, -1, *e.shape[1:]), self)

    def dense(self) -> AntitheticPairs:
        """Returns itself."""
        return self


MAX_GRAM = 16
"""Directions up to which their products are cheaper than their sum, which has to be written to memory."""


def squared_norm(tree: Theta) -> Scalar:
    """Returns the sum of the squares of all numbers of a tree."""
    return jnp.stack([jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)]).sum()


def normal_like(theta: Theta, key: PRNGKey, lead: tuple[int, ...]) -> Theta:
    """Returns unit-normal draws shaped [*lead, *leaf] for every leaf.

    All numbers come from one draw: a draw per leaf would cost a generator's compilation each.
    """
    flat, unravel = ravel_pytree(theta)
    draws = jax.random.normal(key, (*lead, flat.size), flat.dtype)
    for _ in lead:
        unravel = jax.vmap(unravel)
    return unravel(draws)
