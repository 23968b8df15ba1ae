"""Training in bfloat16: parameters, inputs and gradients have eight significant bits.

What the family keeps in float32 for itself stays so: model state (an average over many steps would stop moving) and
the loss.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.5, item 4.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from lopt.training_gradient import LossAndGradient, value_and_grad
from lopt.types import Batch, PRNGKey, PyTree, Scalar, Split, Task, TaskState
from task_generator.augmentations.wrapped import WrappedTask, WrappingConfig, cast_like


class LowPrecisionConfig(WrappingConfig):
    """bfloat16 parameters and inputs."""

    augmentation: Literal["low_precision"] = "low_precision"

    probability: ClassVar[float] = 0.2

    def wrap(self, task: Task) -> Task:
        """Returns the task in bfloat16."""
        return LowPrecisionTask(self, task)

    def label(self) -> str:
        """Returns "bf16"."""
        return "bf16"


def to_bfloat16(tree: PyTree) -> PyTree:
    """Returns the tree with float32 leaves rounded; labels, keys and what has another type are left alone."""
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x, tree)


class LowPrecisionTask(WrappedTask[LowPrecisionConfig]):
    """A task in bfloat16."""

    def init(self, key: PRNGKey) -> TaskState:
        """Returns the inner task's fresh state, its parameters rounded."""
        state = self.inner.init(key)
        return state._replace(params=to_bfloat16(state.params))

    def batch(self, key: PRNGKey, split: Split = "train") -> Batch:
        """Returns the inner task's batch, its real numbers rounded."""
        return to_bfloat16(self.inner.batch(key, split))

    def loss(self, state: TaskState, key: PRNGKey, batch: Batch) -> tuple[Scalar, TaskState]:
        """Returns the inner task's loss, float32, and its next state in the state's own types."""
        loss, after = self.inner.loss(state, key, batch)
        return loss.astype(jnp.float32), cast_like(after, state)

    def value_and_grad(self, state: TaskState, key: PRNGKey, batch: Batch) -> LossAndGradient:
        """Returns what the inner task shows in training; gradients are bfloat16 like the parameters."""
        (loss, after), grads = value_and_grad(self.inner, state, key, batch)
        return (loss.astype(jnp.float32), cast_like(after, state)), grads
