"""Stand-ins for values that will be replaced: arrays of the right shape and type, without computing them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def stand_in(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """Returns zeros, or keys, shaped like `leaf`. Nothing is compiled; `jnp.zeros` is, per shape."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), leaf.shape)
    return jnp.asarray(np.zeros(leaf.shape, leaf.dtype))
