"""Lengths whose logarithm is uniform: every octave is as likely as the next (Metz et al. 2022, VeLO, App. D.1)."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from lopt.lengths.base import Bound, LengthsConfig


class LogUniformConfig(LengthsConfig):
    """Has no numbers of its own."""

    lengths: Literal["log_uniform"] = "log_uniform"

    def quantile(self, u: jax.Array, low: Bound, high: Bound) -> jax.Array:
        """Returns low · ((high + 1) / low)^u."""
        log_low, log_high = jnp.log(jnp.float32(low)), jnp.log(jnp.float32(high + 1))
        return jnp.exp(log_low + u * (log_high - log_low))
