"""Every number of every meta-gradient: 4 bytes for each of theta's, whatever the estimator."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from curriculum.transports.base import Packed
from lopt.estimators.evolution import TasksConfig
from lopt.types import MetaGradient, Theta


class Dense:
    """Sends gradients as they are, one a message."""

    name = "dense"
    units_per_message = 1

    def refusal(self, estimator: TasksConfig, mode: str) -> str:
        """Returns "": every gradient can travel so."""
        del estimator, mode
        return ""

    def pack(self, result: MetaGradient) -> Packed:
        """Returns the gradient as NumPy."""
        return jax.tree.map(np.asarray, jax.device_get(result.mean))

    def add(self, packed: Sequence[Packed]) -> Packed:
        """Returns the sum, added in float64."""
        if len(packed) == 1:
            return packed[0]
        return jax.tree.map(_sum, *packed)

    def unpack(self, packed: Packed, estimator: TasksConfig, theta: Theta) -> Theta:
        """Returns it."""
        del estimator, theta
        return packed


def _sum(*leaves: np.ndarray) -> np.ndarray:
    total = leaves[0].astype(np.float64)
    for leaf in leaves[1:]:
        total += leaf
    return total.astype(np.float32)
