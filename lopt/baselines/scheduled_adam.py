"""Adam on a schedule, with one rate to tune: what "a tuned Adam" means to most users.

`adam_sqrt_decay` and `adam_exp_decay` belong, with Adam and RAdam at constant rates, to the extended normaliser
of [1] (App. G.12). Both have absolute time constants, whatever the horizon: over 300 000 steps the exponential
one ends at 7.6e-10 of its rate.

[1] Metz et al. 2022, "VeLO", App. F.1, G.12. Their Adam has 1e-8 under the root besides the usual ε.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import optax

from lopt.features.progress import cosine_decay
from lopt.types import Scalar

SQRT_DECAY_WARMUP = 1_000
EXP_DECAY = 7e-5


def adam(learning_rate: Scalar, num_steps: Scalar) -> optax.GradientTransformation:
    """Returns Adam at a constant rate, with its usual constants."""
    del num_steps  # a constant rate has no horizon
    return optax.chain(optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8), descend(lambda count: learning_rate))


def adamw_cosine(learning_rate: Scalar, num_steps: Scalar) -> optax.GradientTransformation:
    """Returns AdamW (decay 1e-4) whose rate falls from `learning_rate` to 0 over the run as half a cosine."""
    total = jnp.asarray(num_steps, jnp.float32)
    return optax.chain(
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        optax.add_decayed_weights(1e-4),
        descend(lambda count: learning_rate * cosine_decay(count.astype(jnp.float32), total)),
    )


def adam_sqrt_decay(learning_rate: Scalar, num_steps: Scalar) -> optax.GradientTransformation:
    """Returns Adam at the rate η·min(t/1000, √(1000/t)), t = max(updates so far, 1)."""
    del num_steps  # its time constant is absolute
    return optax.chain(_published_adam(), descend(lambda count: learning_rate * sqrt_decay(count)))


def adam_exp_decay(learning_rate: Scalar, num_steps: Scalar) -> optax.GradientTransformation:
    """Returns Adam at the rate η·(1 − 7e-5)^t, t updates so far."""
    del num_steps  # its time constant is absolute
    return optax.chain(_published_adam(), descend(lambda count: learning_rate * exp_decay(count)))


def sqrt_decay(count: Scalar) -> Scalar:
    """Returns min(t/1000, √(1000/t)) with t = max(count, 1)."""
    t = jnp.maximum(jnp.asarray(count, jnp.float32), 1.0)
    return jnp.minimum(t / SQRT_DECAY_WARMUP, jnp.sqrt(SQRT_DECAY_WARMUP / t))


def exp_decay(count: Scalar) -> Scalar:
    """Returns (1 − 7e-5)^count."""
    # Not a power of the rounded base: in float32 that is 0.7 % off after 300 000 steps.
    return jnp.exp(math.log1p(-EXP_DECAY) * jnp.asarray(count, jnp.float32))


def _published_adam() -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8, eps_root=1e-8)


def descend(schedule: Callable[[Scalar], Scalar]) -> optax.GradientTransformation:
    """Returns the last link of a chain: steps of the size `schedule(updates so far)`, downhill."""
    return optax.scale_by_schedule(lambda count: -schedule(count))
