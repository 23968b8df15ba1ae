"""What inner training sees of a task: a loss and a gradient, usually those of the loss function.

Some problems hand their optimizer something else: an estimate by evolution strategies, a normalised gradient, one
that is some steps old. Such a task has a method of its own, `value_and_grad`; its `loss` stays the problem's true
loss, which is what meta-losses and evaluations are measured by.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax

from lopt.types import Batch, Params, PRNGKey, Scalar, Task, TaskState

LossAndGradient = tuple[tuple[Scalar, TaskState], Params]
"""((loss, state with its model state brought forward), gradient like the parameters), as `jax.value_and_grad`."""


@runtime_checkable
class HasOwnGradient(Protocol):
    """A task whose training gradient is not simply that of its loss."""

    def value_and_grad(self, state: TaskState, key: PRNGKey, batch: Batch) -> LossAndGradient:
        """Returns what an optimizer is shown at `state.params`."""
        ...


def value_and_grad(task: Task, state: TaskState, key: PRNGKey, batch: Batch) -> LossAndGradient:
    """Returns the loss, the next state and the gradient that training on `batch` sees.

    Args:
      task: The problem; asked for its own gradient where it has one.
      state: Where to evaluate.
      key: The randomness of the loss (dropout, noise).
      batch: From `task.batch`.
    """
    if isinstance(task, HasOwnGradient):
        return task.value_and_grad(state, key, batch)

    def loss_fn(params: Params) -> tuple[Scalar, TaskState]:
        return task.loss(state._replace(params=params), key, batch)

    return jax.value_and_grad(loss_fn, has_aux=True)(state.params)
