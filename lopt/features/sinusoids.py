"""The number of steps taken, on time-scales from one step to a hundred thousand.

[1] Metz et al. 2020, App. C. Its text multiplies the step by the time-scale, which for whole steps is noise from
the third one on; the published network divides, and so does this.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

TIME_SCALES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000, 100000)


def sinusoidal_step(step: jax.Array) -> jax.Array:
    """Returns sin(t/(πs)) for the eleven time-scales s; `step` t is a scalar float32: [11]."""
    return jnp.sin(step / (jnp.asarray(TIME_SCALES, jnp.float32) * jnp.float32(jnp.pi)))
