"""Sizes of meta-gradients, and how alike two are: in float64, where they are, without a device."""

from __future__ import annotations

import jax
import numpy as np

from lopt.types import Theta


def norm(tree: Theta) -> float:
    """Returns the Euclidean norm of all numbers of a tree."""
    squares = [float(np.sum(np.square(leaf, dtype=np.float64))) for leaf in jax.tree.leaves(tree)]
    return float(np.sqrt(sum(squares)))


def cosine(first: Theta, second: Theta | None) -> float:
    """Returns the cosine between two gradients; NaN where there is no second, or one is zero."""
    if second is None:
        return float("nan")
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    dot = sum(float(np.sum(np.multiply(a, b, dtype=np.float64))) for a, b in pairs)
    size = norm(first) * norm(second)
    return dot / size if size else float("nan")
