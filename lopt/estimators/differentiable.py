"""A window of training that can be differentiated with respect to theta: a scan of a fixed number of steps.

Every step is computed anew on the way back, so memory grows with the states of the window and not with what its
steps compute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lopt.delegating_task import DelegatingTask
from lopt.estimators.trajectory import Trajectory, Unroller
from lopt.inner_loop import InnerState
from lopt.objective import LossTrace, meta_loss, traced_step
from lopt.training_gradient import LossAndGradient
from lopt.types import Batch, Dynamic, PRNGKey, Scalar, Task, TaskState, Theta


@dataclasses.dataclass(frozen=True)
class FirstOrderTask(DelegatingTask):
    """A task whose gradient does not depend on where it was taken, as far as theta is concerned.

    How a gradient changes with the parameters is what second derivatives are needed for.
    """

    inner: Task

    def value_and_grad(self, state: TaskState, key: PRNGKey, batch: Batch) -> LossAndGradient:
        """Returns the task's loss and gradient, the gradient as a constant."""
        value, grads = super().value_and_grad(state, key, batch)
        return value, jax.lax.stop_gradient(grads)


def window_loss(
    unroller: Unroller, trajectory: Trajectory, end: Scalar, *, max_steps: int, second_derivatives: bool
) -> Callable[..., tuple[Scalar, tuple[InnerState, LossTrace]]]:
    """Returns (theta, dynamic, inner, trace, key) → (loss since `trajectory.step`, (inner, trace) at `end`).

    Nothing flows back into `inner`: what happened before the window is a constant.

    Args:
      unroller: Of the estimator.
      trajectory: Where the window starts, for one lane at a time.
      end: The step at which it ends.
      max_steps: The largest number of steps to `end`. Static.
      second_derivatives: Whether theta's effect on the gradients that the optimizer sees counts.
    """
    c = unroller.config

    def loss(
        theta: Theta, dynamic: Dynamic, inner: InnerState, trace: LossTrace, key: PRNGKey
    ) -> tuple[Scalar, tuple[InnerState, LossTrace]]:
        task: Task = unroller.family.task(dynamic)
        shown = task if second_derivatives else FirstOrderTask(task)
        optimizer = unroller.learned_optimizer.transform(theta, num_steps=trajectory.horizon)
        step_key = jax.random.fold_in(key, 1)
        # A trajectory's first state comes from theta too: an LSTM's start, a learned initial rate.
        first = optimizer.init(inner.task_state.params)
        inner = inner._replace(
            optimizer_state=jax.tree.map(
                lambda new, old: jnp.where(trajectory.step == 0, new, old), first, inner.optimizer_state
            )
        )

        @jax.checkpoint
        def body(carry: tuple[InnerState, LossTrace], index: Scalar) -> tuple[Any, None]:
            step = trajectory.step + index
            make = lambda: traced_step(
                shown, optimizer, *carry, jax.random.fold_in(step_key, step), objective=c
            )
            return jax.lax.cond(step < end, make, lambda: carry), None

        start = LossTrace(jnp.float32(0.0), jnp.float32(jnp.inf), trace.first)
        (inner, trace), _ = jax.lax.scan(body, (inner, start), jnp.arange(max_steps, dtype=jnp.int32))
        last_key = jax.random.fold_in(key, end)
        value = meta_loss(task, inner, trace, last_key, num_steps=end - trajectory.step, objective=c)
        return value, (inner, trace)

    return loss
