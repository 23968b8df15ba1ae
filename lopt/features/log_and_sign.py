"""A gradient as two numbers of moderate size: its logarithm and its sign.

Gradients span many orders of magnitude, and a network sees only the largest of them. [1] Andrychowicz et al. 2016,
"Learning to learn by gradient descent by gradient descent", App. A.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def log_and_sign(grad: jax.Array, log_range: float) -> tuple[jax.Array, jax.Array]:
    """Returns two features of the gradient, each of its shape.

        (log|g| / p, sign g)    where |g| ≥ e^−p,        (−1, e^p · g)    elsewhere

    Both are continuous, and finite for every finite gradient.

    Args:
      grad: Any shape.
      log_range: p. Larger values distinguish smaller gradients.
    """
    smallest = math.exp(-log_range)
    size = jnp.abs(grad)
    logarithm = jnp.log(jnp.maximum(size, smallest)) / log_range
    return logarithm, jnp.clip(grad / smallest, -1.0, 1.0)
