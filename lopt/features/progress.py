"""How far the inner run is: the fraction of its steps taken, on nine soft thresholds."""

from __future__ import annotations

import jax
import jax.numpy as jnp

FRACTION_THRESHOLDS = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
"""Where VeLO's nine units switch (Metz et al. 2022, App. B: fraction of training remaining)."""


def tanh_fraction(fraction: jax.Array) -> jax.Array:
    """Returns tanh(10·(fraction − s)) for the nine thresholds s: shape [9], in (−1, 1). `fraction` is a scalar."""
    return jnp.tanh(10.0 * (fraction - jnp.asarray(FRACTION_THRESHOLDS, jnp.float32)))


def cosine_decay(count: jax.Array, num_steps: jax.Array) -> jax.Array:
    """Returns ½(1 + cos πt/T), held at its end value 0 beyond T; `count` t and `num_steps` T are scalars."""
    fraction = jnp.clip(count / jnp.maximum(num_steps, 1.0), 0.0, 1.0)
    return 0.5 * (1.0 + jnp.cos(jnp.pi * fraction))
