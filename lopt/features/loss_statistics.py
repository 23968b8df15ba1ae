"""Losses on a common scale: how many standard deviations from their own running mean.

The validation loss is measured with the *training* loss's mean and deviation, so that overfitting shows.

[1] Metz et al. 2020, App. C.2.2 ("LossAccum").
Deviations: a loss that is not finite counts as none; one beyond ±1e18, whose square float32 still holds, as ±1e18.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt.features.accumulators import debias, update_ema

MAX_LOSS = 1e18
MAX_DEVIATION = 5.0


class LossStatistics(NamedTuple):
    """Running mean and variance, neither corrected for its zero start; scalars float32."""

    mean: jax.Array
    variance: jax.Array
    num_losses: jax.Array


def init_loss_statistics() -> LossStatistics:
    """Returns the statistics of no loss."""
    zero = jnp.zeros((), jnp.float32)
    return LossStatistics(zero, zero, zero)


def update_loss_statistics(stats: LossStatistics, loss: jax.Array, decay: float) -> LossStatistics:
    """Returns the statistics with `loss` (scalar float32) added; as they were where it is not finite.

    The deviation is taken from the new mean, which is not corrected for its zero start.
    """
    bounded = jnp.clip(loss, -MAX_LOSS, MAX_LOSS)
    mean = update_ema(stats.mean, bounded, decay)
    variance = update_ema(stats.variance, jnp.square(mean - bounded), decay)
    updated = LossStatistics(mean, variance, stats.num_losses + 1.0)
    return jax.tree.map(lambda new, old: jnp.where(jnp.isfinite(loss), new, old), updated, stats)


def mean_loss(stats: LossStatistics, decay: float) -> jax.Array:
    """Returns the mean, corrected for its zero start: scalar float32; zero before the first loss."""
    return debias(stats.mean, decay, stats.num_losses)


def standardized(stats: LossStatistics, loss: jax.Array, decay: float) -> jax.Array:
    """Returns (loss − mean)/√(variance + 1e-8) within ±5: scalar float32; 0 for a loss that is not finite."""
    bounded = jnp.clip(loss, -MAX_LOSS, MAX_LOSS)
    variance = debias(stats.variance, decay, stats.num_losses)
    deviation = (bounded - mean_loss(stats, decay)) * jax.lax.rsqrt(variance + 1e-8)
    return jnp.where(jnp.isfinite(loss), jnp.clip(deviation, -MAX_DEVIATION, MAX_DEVIATION), 0.0)
