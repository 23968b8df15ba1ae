"""Antithetic pairs whose matrices have low rank: E = A·Bᵀ/√r, with unit-normal A [m, r] and B [n, r].

A perturbed product then costs the unperturbed one, which all lanes share, and two thin ones:

    (W + σE)·x = W·x + σ/√r · A·(Bᵀ·x)

The entries of E have variance one and are uncorrelated, so to first order in σ the estimate is that of Gaussian
directions; they are not Gaussian, so the smoothed loss differs at order σ², less the larger r is.

Tensors with more than two axes are matrices over a split of their axes, the most even one. Vectors, and matrices
whose factors would not be smaller, get dense Gaussian directions.

[1] Sarkar et al. 2025, "Evolution Strategies at the Hyperscale" (EGGROLL), arXiv:2511.16652.
Deviation from [1]: pairs share their factors with opposite sign here; there, lanes are paired by seed likewise.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.perturbations.antithetic import AntitheticPairs, normal_like
from lopt.perturbations.base import PerturbationConfig
from lopt.types import PRNGKey, Scalar, Theta


class LowRankConfig(PerturbationConfig):
    """The rank r of every matrix's direction."""

    perturbation: Literal["low_rank"] = "low_rank"
    rank: int = Field(1, ge=1)

    @property
    def factor_rank(self) -> int:
        """The rank."""
        return self.rank

    def sample(self, theta: Theta, key: PRNGKey, num_lanes: int) -> LowRankPairs:
        """Returns one direction per lane; the other twin has its negative."""
        leaves, treedef = jax.tree.flatten(theta)
        shapes = [factored_shape(leaf.shape, self.rank) for leaf in leaves]
        templates: list[Any] = []
        for leaf, shape in zip(leaves, shapes, strict=True):
            if shape is None:
                templates.append(leaf)
            else:
                rows, columns = shape
                templates.append((jnp.zeros((rows, self.rank)), jnp.zeros((columns, self.rank))))
        drawn = normal_like(templates, key, (num_lanes,))
        directions = [
            one if shape is None else LowRankMatrices(one[0] * self.rank**-0.5, one[1], like=leaf)
            for one, shape, leaf in zip(drawn, shapes, leaves, strict=True)
        ]
        return LowRankPairs(jax.tree.unflatten(treedef, directions))


@jax.tree_util.register_pytree_node_class
class LowRankMatrices:
    """Every lane's direction of one tensor: left [N, m, r] (already over √r), right [N, n, r]."""

    def __init__(self, left: jax.Array, right: jax.Array, *, like: Any = None, shape: tuple[int, ...] = ()):
        self.left, self.right = left, right
        self.shape = tuple(like.shape) if like is not None else shape

    def tree_flatten(self) -> tuple[tuple[jax.Array, jax.Array], tuple[int, ...]]:
        """Returns the factors, and the tensor's shape as what is static."""
        return (self.left, self.right), self.shape

    @classmethod
    def tree_unflatten(cls, shape: tuple[int, ...], factors: Any) -> LowRankMatrices:
        """Puts together what `tree_flatten` took apart."""
        return cls(*factors, shape=shape)

    def dense(self) -> jax.Array:
        """Returns [N, *shape]."""
        product = jnp.einsum("...mr,...nr->...mn", self.left, self.right)
        return product.reshape(*product.shape[:-2], *self.shape)

    def weighted_sum(self, weights: jax.Array) -> jax.Array:
        """Returns Σ wₙ Aₙ·Bₙᵀ, in the tensor's shape, from weights [N].

        One product over lanes and rank together; no lane's matrix is written out.
        """
        lanes, _, rank = self.left.shape
        left = jnp.moveaxis(self.left * weights[:, None, None], 1, 0).reshape(-1, lanes * rank)
        right = jnp.moveaxis(self.right, 1, 0).reshape(-1, lanes * rank)
        return (left @ right.T).reshape(self.shape)

    def squared_norm(self, weights: jax.Array) -> Scalar:
        """Returns ‖Σ wₙ Aₙ·Bₙᵀ‖² = Σ wₙwₘ tr(AₙᵀAₘ·BₘᵀBₙ), a scalar, from weights [N].

        Nothing on the way is as large as the matrix.
        """
        left = jnp.einsum("nar,mas->nmrs", self.left, self.left)
        right = jnp.einsum("nbr,mbs->nmrs", self.right, self.right)
        return weights @ jnp.sum(left * right, axis=(2, 3)) @ weights


def _is_factored(node: Any) -> bool:
    return isinstance(node, LowRankMatrices)


class LowRankPairs(NamedTuple):
    """`directions`: like theta, every leaf `LowRankMatrices` or an array [N, *leaf]."""

    directions: Theta

    def twins(self, theta: Theta, sigma: float | Scalar) -> Theta:
        """Returns leaves [2, N, *leaf], written out."""
        return self.dense().twins(theta, sigma)

    def weights(self, utilities: jax.Array) -> jax.Array:
        """Returns the utilities, [N, 2]."""
        return utilities

    def weighted_sum(self, weights: jax.Array) -> Theta:
        """Returns Σ (w⁺ − w⁻) ε, a tree like theta, from weights [N, 2]."""
        difference = weights[:, 0] - weights[:, 1]
        return self._map(
            lambda d: d.weighted_sum(difference) if _is_factored(d) else jnp.tensordot(difference, d, axes=1)
        )

    def squared_norm(self, weights: jax.Array) -> Scalar:
        """Returns the squared norm of the sum, a scalar, from the factors' products."""
        difference = weights[:, 0] - weights[:, 1]
        parts = [
            d.squared_norm(difference)
            if _is_factored(d)
            else jnp.sum(jnp.square(jnp.tensordot(difference, d, 1)))
            for d in jax.tree.leaves(self.directions, is_leaf=_is_factored)
        ]
        return jnp.stack(parts).sum()

    def by_task(self, num_tasks: int) -> LowRankPairs:
        """Returns leaves [num_tasks, N / num_tasks, …]."""
        return jax.tree.map(lambda e: e.reshape(num_tasks, -1, *e.shape[1:]), self)

    def dense(self) -> AntitheticPairs:
        """Returns the directions as arrays [N, *leaf]."""
        return AntitheticPairs(self._map(lambda d: d.dense() if _is_factored(d) else d))

    def _map(self, fn: Any) -> Theta:
        return jax.tree.map(fn, self.directions, is_leaf=_is_factored)


def factored_shape(shape: tuple[int, ...], rank: int) -> tuple[int, int] | None:
    """Returns (rows, columns) of the most even split of a tensor's axes, or None where factors save nothing."""
    size = math.prod(shape)
    splits = [(math.prod(shape[:axis]), math.prod(shape[axis:])) for axis in range(1, len(shape))]
    if not splits:
        return None
    rows, columns = min(splits, key=lambda split: sum(split))
    return (rows, columns) if rank * (rows + columns) < size else None
