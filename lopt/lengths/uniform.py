"""Lengths all equally likely (Metz et al. 2020, 3.1: truncations of 240 to 360 steps)."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from lopt.lengths.base import Bound, LengthsConfig


class UniformConfig(LengthsConfig):
    """Has no numbers of its own."""

    lengths: Literal["uniform"] = "uniform"

    def quantile(self, u: jax.Array, low: Bound, high: Bound) -> jax.Array:
        """Returns low + u · (high + 1 − low)."""
        return jnp.float32(low) + u * (jnp.float32(high + 1) - jnp.float32(low))
