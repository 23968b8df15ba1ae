"""How many updates the run has made, on soft thresholds at fixed time-scales: what optimizers that do not know the
number of steps see of time.

[1] Metz et al. 2018, "Understanding and correcting pathologies in the training of learned optimizers", App. C.
[2] google/learned_optimization (Apache-2.0): the eleven time-scales of the published networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

PUBLISHED_TIMESCALES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0)
"""The time-scales of the published networks, in updates."""
PAPER_TIMESCALES = tuple(3.0 * 100_000.0 ** (i / 8) for i in range(9))
"""Those of [1]: nine from 3 to 300 000, logarithmically spaced."""


def tanh_iteration(iteration: jax.Array, timescales: Sequence[float]) -> jax.Array:
    """Returns tanh(t/s − 1) for every time-scale s: [len(timescales)], in (−1, 1).

    Args:
      iteration: t, the updates made before this one; a scalar.
      timescales: In updates; positive. May be empty.
    """
    return jnp.tanh(iteration.astype(jnp.float32) / jnp.asarray(timescales, jnp.float32) - 1.0)
