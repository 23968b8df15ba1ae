"""Sizes of meta-gradients: in float64, where they are, without a device."""

from __future__ import annotations

import jax
import numpy as np

from lopt.types import Theta


def squared_norm(tree: Theta) -> float:
    """Returns the sum of the squares of all numbers of a tree; not finite if one of them is not."""
    return sum(float(np.sum(np.square(leaf, dtype=np.float64))) for leaf in jax.tree.leaves(tree))
