"""A fixed piece of work, run between the timed runs: how fast is the machine at this moment?

A processor's speed changes from second to second by a third and more (its clock, its neighbours in a virtual
machine), and all programs change alike. Runs are compared with the probes beside them, and the probe's seconds
are recorded, so that timings taken at different moments can be brought to one speed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

SIDE, ROUNDS = 64, 24
"""About a millisecond of products, element-wise work and random bits, as inner steps are made of."""


@functools.lru_cache(maxsize=1)
def _program() -> tuple[Any, jax.Array]:
    def body(step: jax.Array, carry: jax.Array) -> jax.Array:
        noise = jax.random.uniform(jax.random.fold_in(jax.random.key(0), step), carry.shape)
        return jnp.tanh(carry @ carry.T * 0.01 + noise)

    start = jnp.full((SIDE, SIDE), 0.5, jnp.float32)
    program = jax.jit(lambda x: jax.lax.fori_loop(0, ROUNDS, body, x)).lower(start).compile()
    return program, start


def probe_seconds(clock: Callable[[], float]) -> float:
    """Returns how long the work takes now."""
    program, start = _program()
    began = clock()
    jax.block_until_ready(program(start))
    return clock() - began
