"""The loss that a baseline reaches on a task: what a meta-loss of the scale "baseline" is relative to.

Metz et al. 2020 (arXiv:2009.11243, 3.2) normalise a task's outer loss by its first value and by the best that a
baseline optimizer achieved. Here that is Adam at nine learning rates, for the longest horizon of the estimator: the
least of the final losses on the objective's own split. It is a function of the task and these three alone, so every
worker measures the same number and nothing is stored.

Deviations: the paper does not print which baseline, nor for how long. The final loss counts, not the lowest on the
way, which would profit from the noise of its batches; and the mean over two dynamic configurations of the task.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.family_data import Data, separate_data
from lopt.inner_loop import init_inner, mean_loss, unroll
from lopt.objective import bounded
from lopt.types import PRNGKey, Scalar, Split, TaskFamily

LEARNING_RATES = tuple(10.0 ** (k / 2) for k in range(-8, 1))
"""Half-decades from 1e-4 to 1."""
NUM_DYNAMICS = 2
NUM_BATCHES = 20


def measure_baseline_loss(family: TaskFamily, *, horizon: int, split: Split, cap: float) -> float:
    """Returns the normalised loss of the best learning rate; compiles one program and trains 18 times.

    Args:
      family: One static configuration.
      horizon: Updates of each training.
      split: Whose loss counts.
      cap: Largest normalised loss; divergence counts as this.
    """
    data, with_data = separate_data(family)

    def losses(data: Data, key: PRNGKey, num_steps: Scalar) -> jax.Array:
        task_key, init_key, train_key, loss_key = jax.random.split(key, 4)
        own = with_data(data)
        task = own.task(own.sample_dynamic(task_key))

        def final_loss(rate: Scalar) -> Scalar:
            optimizer = optax.with_extra_args_support(optax.adam(rate))
            inner = init_inner(task, optimizer, init_key)
            inner = unroll(task, optimizer, inner, train_key, start=0, stop=num_steps)
            loss = mean_loss(task, inner.task_state, loss_key, num_batches=NUM_BATCHES, split=split)
            return bounded(task.normalize(loss), cap=cap)

        return jax.vmap(final_loss)(jnp.asarray(LEARNING_RATES, jnp.float32))

    run = jax.jit(losses)
    keys = jax.random.split(jax.random.key(0), NUM_DYNAMICS)
    found = np.asarray([run(data, key, jnp.int32(horizon)) for key in keys])
    return float(found.min(axis=1).mean())
