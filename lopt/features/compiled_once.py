"""Keeping the compiler from repeating a long computation in each of its consumers.

A stack's updates are cut into one slice per tensor, and XLA copies whatever cheap arithmetic leads to a slice into
the slice's own kernel: with 25 tensors, 25 copies of a per-parameter network, at two to three times the compile
time. Nothing is merged across the border of a conditional.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def compiled_once(progress: jax.Array, compute: Callable[[], jax.Array]) -> jax.Array:
    """Returns `compute()`, compiled as a unit that its consumers share.

    Args:
      progress: The run's step counter, scalar: never negative, which the compiler does not know. Where it is
        vectorised, the conditional becomes a selection: right, and no longer a border.
      compute: Returns one array.
    """
    once = jax.jit(compute)  # traced once, and vectorised once: a conditional does both twice
    shape = jax.eval_shape(once)
    return jax.lax.cond(progress >= 0, once, lambda: jnp.zeros(shape.shape, shape.dtype))
