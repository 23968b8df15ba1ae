"""What meta-training minimises: a task's final loss, made comparable between tasks, always finite."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp

from lopt.inner_loop import InnerState, mean_loss
from lopt.types import PRNGKey, Scalar, Task

MetaLossScale = Literal["linear", "log"]

LOG_OFFSET = 1e-3
"""Added under the logarithm: losses below it count as solved (Wichrowska et al. 2017, Eq. 14, uses ε there)."""


def bounded(loss: Scalar, *, cap: float) -> Scalar:
    """Returns the loss clipped to ±cap; a non-finite one becomes the worst value, `cap`.

    This is the only place where divergence turns into a number.
    """
    return jnp.where(jnp.isfinite(loss), jnp.clip(loss, -cap, cap), cap)


def scaled(loss: Scalar, scale: MetaLossScale) -> Scalar:
    """Returns the loss itself, or log(loss + 1e-3), which weighs relative improvements alike on every task."""
    if scale == "linear":
        return loss
    return jnp.log(jnp.maximum(loss, 0.0) + LOG_OFFSET)


def final_loss(
    task: Task, state: InnerState, key: PRNGKey, *, num_batches: int, cap: float, scale: MetaLossScale
) -> Scalar:
    """Returns the meta-loss of a finished run: re-evaluated on fresh training batches (VeLO D.1).

    Args:
      task: The problem.
      state: The state after the last inner step.
      key: Draws the batches; the same for both antithetic twins.
      num_batches: How many fresh batches are averaged.
      cap: Largest normalised loss; divergence counts as this.
      scale: See `scaled`.
    """
    loss = mean_loss(task, state.task_state, key, num_batches=num_batches)
    return scaled(bounded(task.normalize(loss), cap=cap), scale)
