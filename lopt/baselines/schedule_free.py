"""Schedule-free AdamW: an average of the iterates does what a decaying schedule would, without a horizon.

Gradients are taken at y, between the average x and the iterate z; the parameters that an optax loop holds are y.
What counts is x: evaluate `eval_params(state, params)`, or the optimizer looks worse than it is. AdamW needs a
warm-up here (as [1] says, and its entry to AlgoPerf had): 5 % of the run, the only use of the horizon.

[1] Defazio et al. 2024, "The road less scheduled".
"""

from __future__ import annotations

import jax.numpy as jnp
import optax

from lopt.baselines.wide_leaves import narrowed, widened
from lopt.types import Params, Scalar

WARMUP_FRACTION = 0.05


def schedule_free_adamw(learning_rate: Scalar, num_steps: Scalar) -> optax.GradientTransformationExtraArgs:
    """Returns schedule-free AdamW (β₁ 0.9, β₂ 0.999, decay 1e-4); both arguments may be traced."""
    warmup = jnp.maximum(WARMUP_FRACTION * jnp.asarray(num_steps, jnp.float32), 1.0)

    def rate(count: Scalar) -> Scalar:
        return learning_rate * jnp.minimum((jnp.asarray(count, jnp.float32) + 1.0) / warmup, 1.0)

    return optax.contrib.schedule_free_adamw(rate, b1=0.9, b2=0.999, weight_decay=1e-4)


def eval_params(state: optax.OptState, params: Params) -> Params:
    """Returns the average x that belongs to the trained parameters y, in their dtypes."""
    return narrowed(optax.contrib.schedule_free_eval_params(state, widened(params)), params)
