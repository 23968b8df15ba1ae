"""Antithetic perturbations of theta: pairs at θ + σε and θ − σε that share everything else."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from lopt.types import PRNGKey, Scalar, Theta


class AntitheticPairs(NamedTuple):
    """`epsilon`: a tree like theta whose leaves have a leading pair axis [N, *leaf]; unit normal."""

    epsilon: Theta


def sample_pairs(theta: Theta, key: PRNGKey, num_pairs: int) -> AntitheticPairs:
    """Returns N independent unit-normal directions in the space of theta.

    All numbers come from one draw: a draw per leaf would cost a generator's compilation each.
    """
    flat, unravel = ravel_pytree(theta)
    draws = jax.random.normal(key, (num_pairs, flat.size), flat.dtype)
    return AntitheticPairs(jax.vmap(unravel)(draws))


def perturbed(theta: Theta, pairs: AntitheticPairs, sigma: float | Scalar) -> Theta:
    """Returns both twins of every pair: leaves [2, N, *leaf], index 0 at θ + σε, index 1 at θ − σε."""
    return jax.tree.map(
        lambda t, e: jnp.stack([t[None] + sigma * e, t[None] - sigma * e]), theta, pairs.epsilon
    )


def pair_gradient(pairs: AntitheticPairs, differences: jax.Array, sigma: float | Scalar) -> Theta:
    """Returns the ES estimate from the loss differences of the pairs.

        g = 1 / (2σN) · Σᵢ (Lᵢ⁺ − Lᵢ⁻) εᵢ

    Args:
      pairs: The N directions.
      differences: L⁺ − L⁻ per pair: shape [N].
      sigma: Standard deviation that the twins were perturbed with. Positive.
    """
    # σ = 0 measures theta itself; the twins are then equal and the gradient is zero, not 0/0.
    weights = differences / jnp.maximum(2.0 * sigma * differences.shape[0], 1e-12)
    return jax.tree.map(lambda e: jnp.tensordot(weights, e, axes=1), pairs.epsilon)
