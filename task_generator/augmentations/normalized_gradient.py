"""Gradients of norm one: direction without size.

    g / ‖g‖,  the norm over all parameters;  0 where g = 0

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.5, item 5. That one norm is taken for the whole tree is ours: the
paper doesn't say.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import optax

from lopt.training_gradient import LossAndGradient, value_and_grad
from lopt.types import Batch, Params, PRNGKey, Task, TaskState
from task_generator.augmentations.wrapped import WrappedTask, WrappingConfig, cast_like, to_float32


class NormalizedGradientConfig(WrappingConfig):
    """One norm for the whole tree."""

    augmentation: Literal["normalized_gradient"] = "normalized_gradient"

    probability: ClassVar[float] = 0.05

    def wrap(self, task: Task) -> Task:
        """Returns the task with normalised gradients."""
        return NormalizedGradientTask(self, task)

    def label(self) -> str:
        """Returns "unit gradient"."""
        return "unit gradient"


def normalized(grads: Params) -> Params:
    """Returns the direction of `grads`, in their types; exactly zero stays zero.

    Divides by the largest entry first, so that no square overflows or vanishes.
    """
    wide = to_float32(grads)
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(wide)]))
    scale = jnp.where(largest == 0, 1.0, largest)
    shrunk = jax.tree.map(lambda g: g / scale, wide)
    norm = jnp.where(largest == 0, 1.0, optax.tree.norm(shrunk))
    return cast_like(jax.tree.map(lambda g: g / norm, shrunk), grads)


class NormalizedGradientTask(WrappedTask[NormalizedGradientConfig]):
    """A task whose gradients have norm one."""

    def value_and_grad(self, state: TaskState, key: PRNGKey, batch: Batch) -> LossAndGradient:
        """Returns the inner task's loss and next state, and the direction of its gradient."""
        result, grads = value_and_grad(self.inner, state, key, batch)
        return result, normalized(grads)
