"""The course of the loss: moving averages on several time-scales, against the loss now.

Deviation from the design note that `pacer` follows, which took log(average/loss): the symmetric relative
difference below agrees with it to third order, is bounded without a clip, and is defined for losses of any sign.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt.features.accumulators import debias


class LossHistory(NamedTuple):
    """Moving averages of the loss; shape [num_decays]; `num_losses` finite losses seen, scalar float32."""

    ema: jax.Array
    num_losses: jax.Array


def init_loss_history(num_decays: int) -> LossHistory:
    """Returns an empty history."""
    return LossHistory(jnp.zeros((num_decays,), jnp.float32), jnp.zeros((), jnp.float32))


def update_loss_history(history: LossHistory, loss: jax.Array, decays: tuple[float, ...]) -> LossHistory:
    """Returns the history with `loss` (scalar) added; a non-finite loss leaves it as it was."""
    finite = jnp.isfinite(loss)
    rates = jnp.asarray(decays, jnp.float32)
    ema = rates * history.ema + (1.0 - rates) * jnp.where(finite, loss, 0.0)
    return LossHistory(jnp.where(finite, ema, history.ema), history.num_losses + jnp.where(finite, 1.0, 0.0))


def loss_trend(history: LossHistory, loss: jax.Array, decays: tuple[float, ...]) -> jax.Array:
    """Returns 2(average − loss)/(|average| + |loss|) for the scalar `loss`: shape [num_decays], in [−2, 2].

    Positive while the loss falls. Zero before the first loss and for a non-finite one.
    """
    average = jnp.stack([debias(history.ema[i], decay, history.num_losses) for i, decay in enumerate(decays)])
    safe = jnp.where(jnp.isfinite(loss), loss, 0.0)
    trend = 2.0 * (average - safe) / (jnp.abs(average) + jnp.abs(safe) + 1e-12)
    return jnp.where(jnp.isfinite(loss) & (history.num_losses > 0), trend, 0.0)
