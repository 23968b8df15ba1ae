"""Per-tensor scales: how large a tensor is, and what its steps are measured against."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def reference_rms(initial: jax.Array, is_matrix: tuple[bool, ...]) -> jax.Array:
    """Returns the size that each tensor's steps are measured against: [num_tensors].

    A matrix has its own initial RMS. Vectors and scalars (biases start at zero) and all-zero matrices get the
    geometric mean over the other matrices; where there are none, their own RMS, or 1 if that is zero as well.

    Args:
      initial: Initial RMS per tensor, shape [num_tensors].
      is_matrix: Which tensors have two or more dimensions; static.
    """
    usable = jnp.asarray(is_matrix) & (initial > 0)
    logs = jnp.where(usable, jnp.log(jnp.where(usable, initial, 1.0)), 0.0)
    num_usable = jnp.sum(usable.astype(jnp.float32))
    shared = jnp.exp(jnp.sum(logs) / jnp.maximum(num_usable, 1.0))
    own = jnp.where(initial > 0, initial, 1.0)
    return jnp.where(usable, initial, jnp.where(num_usable > 0, shared, own))
