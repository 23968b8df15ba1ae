"""Keeping accumulators in bfloat16 without stalling them: stochastic rounding whose dice are a hash.

A moving average with β = 0.999 changes by a thousandth of its distance to the new value. bfloat16 has 8 bits:
half a unit in the last place is up to 1/256 of the number, so round-to-nearest would undo the change at every
step, and the average would stand still short of what it averages. Rounded up with the probability of the part
that is cut off, it is right on average, and the errors of successive steps cancel instead of adding up.

The dice are a hash of the number's own bits and of `salt`: there is no random state, and the same numbers give
the same bits, sharded or whole. Elements of equal value round the same way.

[1] Gupta et al. 2015, "Deep Learning with Limited Numerical Precision" (stochastic rounding).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

_EXPONENT = 0x7F800000
_LARGEST_BFLOAT16 = 0x7F7F0000


def store(x: jax.Array, dtype: DTypeLike, salt: ArrayLike) -> jax.Array:
    """Returns the float32 array `x` in `dtype`: bfloat16 rounds up or down so that the mean over salts is `x`.

    Numbers that bfloat16 has are kept exactly, zeros and infinities among them; NaN stays NaN. Finite numbers
    beyond bfloat16's range become its largest number.

    Args:
      x: What to keep; float32, any shape.
      dtype: float32 (returned as it is) or bfloat16.
      salt: A scalar whole number, another one at every step: the step's number.

    Raises:
      TypeError: If `x` is not float32, or `dtype` is neither of the two.
    """
    if x.dtype != jnp.float32 or jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16):
        raise TypeError(f"`store` keeps float32 as float32 or bfloat16, got {x.dtype} as {jnp.dtype(dtype)}")
    if jnp.dtype(dtype) == jnp.float32:
        return x
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    magnitude = bits & jnp.uint32(0x7FFFFFFF)
    dither = jnp.where(magnitude < jnp.uint32(_LARGEST_BFLOAT16), _hash(bits, salt) >> 16, jnp.uint32(0))
    rounded = jax.lax.bitcast_convert_type(((bits + dither) >> 16).astype(jnp.uint16), jnp.bfloat16)
    return jnp.where(magnitude < jnp.uint32(_EXPONENT), rounded, x.astype(jnp.bfloat16))


def _hash(bits: jax.Array, salt: ArrayLike) -> jax.Array:
    """Returns 32 mixed bits per element; the upper half is the better one."""
    mixed = bits ^ _mix(jnp.asarray(salt).astype(jnp.uint32) + jnp.uint32(0x9E3779B9))
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x2C1B3C6D)
    return (mixed ^ (mixed >> 12)) * jnp.uint32(0x297A2D39)


def _mix(salt: jax.Array) -> jax.Array:
    """Spreads a counter over 32 bits: neighbouring steps must not get neighbouring dice."""
    salt = (salt ^ (salt >> 16)) * jnp.uint32(0x21F0AAAD)
    salt = (salt ^ (salt >> 15)) * jnp.uint32(0x735A2D97)
    return salt ^ (salt >> 15)
