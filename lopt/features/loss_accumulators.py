"""VeLO's view of the loss: bias-corrected averages on ten time-scales, each against the next slower one.

The half-lives run from 10 steps to the whole run, so the features mean the same at every horizon. A loss enters
clipped to twice the largest average, so that one spike cannot drown a run.

[1] Metz et al. 2022, "VeLO", App. B.2.
Deviation: a loss that is not finite leaves the accumulators as they were; the published network's are lost for
the rest of the run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

NUM_TIME_SCALES = 10
NO_MINIMUM_YET = 999_999_999_999.0


class LossAccumulators(NamedTuple):
    """Averages and running minima, [10]; `num_losses` finite losses seen, scalar int32."""

    means: jax.Array
    running_min: jax.Array
    num_losses: jax.Array


def init_loss_accumulators() -> LossAccumulators:
    """Returns the accumulators before any loss."""
    return LossAccumulators(
        jnp.zeros((NUM_TIME_SCALES,), jnp.float32),
        jnp.full((NUM_TIME_SCALES,), NO_MINIMUM_YET, jnp.float32),
        jnp.zeros((), jnp.int32),
    )


def loss_decays(num_steps: jax.Array) -> jax.Array:
    """Returns exp(−1/h) for ten half-lives h from 10 to `num_steps`, logarithmically spaced: scalar → [10]."""
    half_lives = jnp.logspace(1.0, jnp.log10(num_steps), NUM_TIME_SCALES, dtype=jnp.float32)
    return jnp.exp(-1.0 / half_lives)


@jax.jit
def update_loss_accumulators(acc: LossAccumulators, loss: jax.Array, decays: jax.Array) -> LossAccumulators:
    """Returns the accumulators with `loss` (scalar float32) added; `decays` [10] from `loss_decays`."""
    acc, loss, decays = _isolated((acc, loss, decays))
    is_finite = jnp.isfinite(loss)
    corrected = _debias(acc.means, decays, acc.num_losses + 1)
    bound = jnp.where(acc.num_losses == 0, loss, jnp.max(corrected))
    clipped = jnp.minimum(2.0 * jnp.abs(bound), loss)
    means = decays * acc.means + (1.0 - decays) * clipped
    running_min = jnp.minimum(acc.running_min, _debias(means, decays, acc.num_losses + 1))
    updated = LossAccumulators(means, running_min, acc.num_losses + 1)
    return jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), updated, acc)


@jax.jit
def loss_features(acc: LossAccumulators, decays: jax.Array) -> jax.Array:
    """Returns clip((ema_k − min_k)/(ema_{k+1} − min_k) − 1, −1, 1) for consecutive time-scales: [9].

    Zero for the first two losses, when all averages agree.
    """
    acc, decays = _isolated((acc, decays))
    means = _debias(acc.means, decays, acc.num_losses)
    faster, slower, lowest = means[:-1], means[1:], acc.running_min[:-1]
    ratio = (faster - lowest) / jnp.maximum(1e-8, slower - lowest)
    return jnp.where(acc.num_losses <= 2, 0.0, jnp.clip(ratio - 1.0, -1.0, 1.0))


def _isolated(values: Any) -> Any:
    """Keeps these few numbers' arithmetic the same in every program that it is compiled into.

    A feature is a difference of nearly equal averages: what a fused multiply-add changes in the last bit of one,
    it multiplies a hundredfold.
    """
    return jax.lax.optimization_barrier(values)


def _debias(means: jax.Array, decays: jax.Array, num_losses: jax.Array) -> jax.Array:
    # Floored: at 0 losses 1 − βⁿ is exactly zero. The smallest real value is 1e-7 or so, at horizons of 1e7.
    return means / jnp.maximum(1.0 - jnp.power(decays, num_losses.astype(jnp.float32)), 1e-12)
