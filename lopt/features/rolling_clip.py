"""A bound on gradients that follows their size: `multiplier` times the average of their root mean square.

The average is that of the *clipped* gradients, so that once it has settled a spike of any size raises the bound by
a tenth at most, while a lasting change of scale is followed within some tens of steps. It starts with one
observation of size 1.

[1] Metz et al. 2020, App. C.2.3 ("RollingClipState"); decay and multiplier are meta-learned, as logarithms so that
    they move on the scale of network weights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt.features.accumulators import Decay, debias, update_ema

CLIP_DECAY = 0.99
CLIP_MULTIPLIER = 10.0


class RollingClip(NamedTuple):
    """The average of the gradients' size; scalars float32."""

    size: jax.Array
    num_observations: jax.Array


class ClipSettings(NamedTuple):
    """Decay of the average in [0, 1), and how many times the average a gradient may be."""

    decay: Decay
    multiplier: float | jax.Array


FIXED_CLIP = ClipSettings(CLIP_DECAY, CLIP_MULTIPLIER)


def init_clip_theta() -> dict[str, jax.Array]:
    """Returns meta-parameters that stand for `FIXED_CLIP`: log(1 − decay) and log multiplier."""
    return {
        "log_one_minus_decay": jnp.float32(math.log(1.0 - CLIP_DECAY)),
        "log_multiplier": jnp.float32(math.log(CLIP_MULTIPLIER)),
    }


def learned_clip(theta: dict[str, jax.Array]) -> ClipSettings:
    """Returns the settings that meta-parameters (scalars) stand for.

    Both are bounded: outside [−12, 0] the first is no decay, and e^±12 around 1 is any bound one may want.
    """
    bounded = {
        name: jnp.clip(x, -12.0, 0.0 if name == "log_one_minus_decay" else 12.0) for name, x in theta.items()
    }
    return ClipSettings(1.0 - jnp.exp(bounded["log_one_minus_decay"]), jnp.exp(bounded["log_multiplier"]))


def init_rolling_clip(settings: ClipSettings) -> RollingClip:
    """Returns the state before the first gradient: one observation of size 1."""
    return RollingClip(jnp.asarray(1.0 - settings.decay, jnp.float32), jnp.ones((), jnp.float32))


def clip_bound(clip: RollingClip, settings: ClipSettings) -> jax.Array:
    """Returns the largest magnitude that an element of a gradient may have now: scalar float32."""
    return debias(clip.size, settings.decay, clip.num_observations) * settings.multiplier


def update_rolling_clip(clip: RollingClip, mean_square: jax.Array, settings: ClipSettings) -> RollingClip:
    """Returns the state with one more observation.

    Args:
      clip: The state.
      mean_square: Mean square of the clipped gradients, averaged over tensors: scalar float32.
      settings: The decay that the average was started with.
    """
    size = jnp.sqrt(1e-8 + mean_square)
    return RollingClip(update_ema(clip.size, size, settings.decay), clip.num_observations + 1.0)
