"""Gradients that are `delay` steps old, as in asynchronous training.

Step t applies the gradient, and shows the loss, of its batch at the parameters of step t − delay; before there are
any, at the initial ones. The parameters of the latest `delay` steps wait in the model state. `loss` stays the loss
at the current parameters, so that an evaluation is never stale; so does everything else in the model state.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.5, item 7. The age is exactly the delay; in the release it is one
less from 2 on.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.training_gradient import LossAndGradient, value_and_grad
from lopt.types import Batch, Params, PRNGKey, PyTree, Scalar, Task, TaskState
from task_generator.augmentations.wrapped import WrappedTask, WrappingConfig, cast_like
from task_generator.distributions import Distribution, LogUniformInt


class DelayedGradientsConfig(WrappingConfig):
    """Every gradient is `delay` steps old."""

    augmentation: Literal["delayed_gradients"] = "delayed_gradients"
    delay: int = Field(ge=1, le=128, description="Age of a gradient, in steps.")

    probability: ClassVar[float] = 0.05

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the paper's range."""
        return {"delay": LogUniformInt(low=1, high=8)}

    def wrap(self, task: Task) -> Task:
        """Returns the task with old gradients."""
        return DelayedGradientsTask(self, task)

    def label(self) -> str:
        """Returns e.g. "delay 3"."""
        return f"delay {self.delay}"


class DelayedModelState(NamedTuple):
    """The inner task's model state, and the parameters that gradients are still to be computed at."""

    inner: PyTree
    past: Params  # leaves [delay, *leaf], the oldest first


class DelayedGradientsTask(WrappedTask[DelayedGradientsConfig]):
    """A task whose training sees old parameters."""

    def init(self, key: PRNGKey) -> TaskState:
        """Returns the inner task's fresh state, as if the parameters had always been the initial ones."""
        state = self.inner.init(key)
        repeat = lambda p: jnp.broadcast_to(p[None], (self.config.delay, *p.shape))
        return TaskState(
            state.params, DelayedModelState(state.model_state, jax.tree.map(repeat, state.params))
        )

    def loss(self, state: TaskState, key: PRNGKey, batch: Batch) -> tuple[Scalar, TaskState]:
        """Returns the inner task's loss at the current parameters; no time passes."""
        memory: DelayedModelState = state.model_state
        loss, after = self.inner.loss(state._replace(model_state=memory.inner), key, batch)
        return loss, state._replace(model_state=memory._replace(inner=after.model_state))

    def value_and_grad(self, state: TaskState, key: PRNGKey, batch: Batch) -> LossAndGradient:
        """Returns what the inner task showed `delay` steps ago on this batch, and remembers the parameters."""
        memory: DelayedModelState = state.model_state
        # An outer augmentation may have changed the parameters' type since `init`.
        oldest = cast_like(jax.tree.map(lambda past: past[0], memory.past), state.params)
        (loss, after), grads = value_and_grad(self.inner, TaskState(oldest, memory.inner), key, batch)
        newest = cast_like(state.params, memory.past)
        past = jax.tree.map(lambda old, new: jnp.concatenate([old[1:], new[None]]), memory.past, newest)
        return (loss, state._replace(model_state=DelayedModelState(after.model_state, past))), grads
