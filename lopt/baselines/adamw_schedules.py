"""The 35 AdamW settings that LHOPT is measured against: five learning rates, each with seven schedules.

    constant, multi-step, linear, quadratic, exponential, cosine to 0, cosine to a tenth

[1] names the schedules and rates, no more. Chosen here: a multi-step schedule falls to a tenth after half of the
run and to a hundredth after three quarters; the exponential one ends at a hundredth; the weight decay is PyTorch's
default, 0.01, as are the decays of the moments.

[1] Almeida et al. 2021, "A Generalizable Approach to Learning Optimizers" (LHOPT), Sec. 4.1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lopt.baselines.scheduled_adam import descend
from lopt.types import Scalar

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
SCHEDULES = ("constant", "multi-step", "linear", "quadratic", "exponential", "cosine", "cosine to a tenth")
NUM_SETTINGS = len(RATES) * len(SCHEDULES)
WEIGHT_DECAY = 0.01


class ScheduleSetting(NamedTuple):
    """One of the settings; both fields may be traced."""

    learning_rate: float | Scalar
    schedule: float | Scalar
    """Place in `SCHEDULES`."""


def schedule_setting(number: int) -> ScheduleSetting:
    """Returns setting `number` of `NUM_SETTINGS`, all schedules of a rate after each other."""
    rate, schedule = divmod(number, len(SCHEDULES))
    return ScheduleSetting(RATES[rate], float(schedule))


def adamw_schedules(setting: ScheduleSetting, num_steps: Scalar) -> optax.GradientTransformation:
    """Returns AdamW on a schedule over `num_steps`; both arguments may be traced."""
    total = jnp.maximum(jnp.asarray(num_steps, jnp.float32), 1.0)
    which = jnp.asarray(setting.schedule).astype(jnp.int32)
    return optax.chain(
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        optax.add_decayed_weights(WEIGHT_DECAY),
        descend(lambda count: setting.learning_rate * multipliers(count.astype(jnp.float32) / total)[which]),
    )


def multipliers(progress: jax.Array) -> jax.Array:
    """Returns what each schedule multiplies the rate by, [7], at a fraction of the run, a scalar."""
    done = jnp.clip(progress, 0.0, 1.0)
    left = 1.0 - done
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * done))
    steps = jnp.where(done < 0.5, 1.0, jnp.where(done < 0.75, 0.1, 0.01))
    return jnp.stack([jnp.ones_like(done), steps, left, left**2, 0.01**done, cosine, 0.1 + 0.9 * cosine])
