"""Perturbed weights that are never written out: what lanes and twins have in common is computed for all at once.

    x·(θ + cE) = x·θ + c·(x·E),   c = ±σ

θ is the same for every twin of every lane, so x·θ is one large product for all of them; E is the same for both
twins of a lane, and is read once for the two, or is of low rank and hardly read at all. A copy of θ per twin
would be read from memory in every inner step, which is what such a step takes.

Only weights that enter the optimizer through `lopt.nn.product` can be so, and only large ones gain by it: an
optimizer names them in `product_weights`.

[1] Sarkar et al. 2025, arXiv:2511.16652.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lopt.perturbations.antithetic import AntitheticPairs
from lopt.perturbations.base import Directions
from lopt.perturbations.low_rank import LowRankMatrices, LowRankPairs
from lopt.types import LearnedOptimizer, Scalar, Theta

MIN_SIZE = 16_384
"""Numbers of a weight from which not copying it pays for the second product."""


@jax.tree_util.register_pytree_node_class
class PerturbedWeight:
    """θ + cE, as its parts: `base` [n, *rest]; E an array like it, or the factors of its matrix [n, rest]."""

    def __init__(self, base: Any, coefficient: Any, direction: Any) -> None:
        self.base, self.coefficient, self.direction = base, coefficient, direction

    def tree_flatten(self) -> tuple[tuple[Any, Any, Any], None]:
        """Returns the parts."""
        return (self.base, self.coefficient, self.direction), None

    @classmethod
    def tree_unflatten(cls, _: None, parts: Any) -> PerturbedWeight:
        """Puts together what `tree_flatten` took apart."""
        return cls(*parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight."""
        return tuple(self.base.shape)

    def product(self, x: jax.Array) -> jax.Array:
        """Returns x·(θ + cE) over x's last axis and the weight's first: [..., n] → [..., *rest]."""
        common = jnp.tensordot(x, self.base, axes=1)
        if isinstance(self.direction, LowRankMatrices):
            thin = (x @ self.direction.left) @ self.direction.right.T
            own = thin.reshape(*x.shape[:-1], *self.shape[1:])
        else:
            own = jnp.tensordot(x, self.direction, axes=1)
        return common + self.coefficient * own


class LaneThetas(NamedTuple):
    """Both twins of every lane, and the axes over which to take them apart, lanes first, then twins.

    Leaves [2, N, *leaf]; of a shared weight a `PerturbedWeight` of θ itself, the coefficients ±σ [2], and the
    direction's arrays with the lane axis N in front.
    """

    thetas: Theta
    lane_axes: Theta
    twin_axes: Theta


def lane_thetas(
    learned: LearnedOptimizer, theta: Theta, directions: Directions, sigma: float | Scalar
) -> LaneThetas:
    """Returns the twins θ ± σε of every lane, large weights shared where optimizer and strategy allow it."""
    shareable = _shareable(learned, theta, directions)
    if not any(jax.tree.leaves(shareable)):
        twins = directions.twins(theta, sigma)
        return LaneThetas(twins, jax.tree.map(lambda _: 1, theta), jax.tree.map(lambda _: 0, theta))
    assert isinstance(directions, AntitheticPairs | LowRankPairs)
    epsilon = directions.epsilon if isinstance(directions, AntitheticPairs) else directions.directions
    signs = sigma * jnp.asarray([1.0, -1.0], jnp.float32)

    def place(base: jax.Array, is_shared: bool, direction: Any) -> LaneThetas:
        if is_shared:
            return LaneThetas(
                PerturbedWeight(base, signs, direction),
                PerturbedWeight(None, None, 0),
                PerturbedWeight(None, 0, None),
            )
        written = direction.dense() if isinstance(direction, LowRankMatrices) else direction
        twins = AntitheticPairs(written).twins(base, sigma)
        return LaneThetas(twins, 1, 0)

    placed = jax.tree.map(place, theta, shareable, epsilon)
    parts = [
        jax.tree.map(lambda one, i=i: one[i], placed, is_leaf=lambda node: isinstance(node, LaneThetas))
        for i in range(3)
    ]
    return LaneThetas(*parts)


def _shareable(learned: LearnedOptimizer, theta: Theta, directions: Directions) -> Any:
    """Returns a tree like theta: whether each weight can be shared, and is worth it."""
    names: tuple[str, ...] = getattr(learned, "product_weights", ())
    if not names or not isinstance(directions, AntitheticPairs | LowRankPairs):
        return jax.tree.map(lambda _: False, theta)
    epsilon = directions.epsilon if isinstance(directions, AntitheticPairs) else directions.directions

    def decide(path: Any, leaf: jax.Array, direction: Any) -> bool:
        if leaf.size < MIN_SIZE or jax.tree_util.keystr(path) not in names:
            return False
        is_factored = isinstance(direction, LowRankMatrices)
        return not is_factored or direction.left.shape[-2] == leaf.shape[0]

    return jax.tree_util.tree_map_with_path(decide, theta, epsilon)
