"""Sparse gradients: at each step, most entries of the gradient are shown as zero.

"Sets a large fraction of the gradient entries to 0 at each training step" [1]. Which ones is drawn anew, for each
number on its own, from the step's key. What remains keeps its size, so that the expected gradient shrinks to the
fraction kept; the loss is unchanged.

The text gives no fraction (the release: 0.99) and no share of problems: here one task in five, with half, 90 % or
99 % of the entries zero.

[1] Wichrowska et al. 2017 (arXiv:1703.04813), Section 4.1.5.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.training_gradient import LossAndGradient, value_and_grad
from lopt.types import Batch, Params, PRNGKey, Task, TaskState
from task_generator.augmentations.wrapped import WrappedTask, WrappingConfig, own_key
from task_generator.distributions import Categorical, Distribution
from task_generator.initializers import split_vector


class SparseGradientsConfig(WrappingConfig):
    """Each entry of each gradient is zero with a probability."""

    augmentation: Literal["sparse_gradients"] = "sparse_gradients"
    zero_probability: float = Field(gt=0, lt=1, description="Expected fraction of entries shown as zero.")

    probability: ClassVar[float] = 0.2

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the prior of the fraction."""
        return {"zero_probability": Categorical(values=(0.5, 0.9, 0.99))}

    def wrap(self, task: Task) -> Task:
        """Returns the task with sparse gradients."""
        return SparseGradientsTask(self, task)

    def label(self) -> str:
        """Returns e.g. "90% sparse"."""
        return f"{100 * self.zero_probability:g}% sparse"


class SparseGradientsTask(WrappedTask[SparseGradientsConfig]):
    """A task that shows most of its gradient as zero."""

    def value_and_grad(self, state: TaskState, key: PRNGKey, batch: Batch) -> LossAndGradient:
        """Returns what the inner task shows in training, with entries of the gradient set to zero."""
        result, grads = value_and_grad(self.inner, state, key, batch)
        return result, self._sparse(grads, own_key(key, self.config.augmentation))

    def _sparse(self, grads: Params, key: PRNGKey) -> Params:
        leaves, structure = jax.tree.flatten(grads)
        draws = jax.random.uniform(key, (sum(leaf.size for leaf in leaves),), jnp.float32)
        kept = split_vector(draws >= self.config.zero_probability, [leaf.shape for leaf in leaves])
        sparse = [jnp.where(keep, g, jnp.zeros_like(g)) for keep, g in zip(kept, leaves, strict=True)]
        return jax.tree.unflatten(structure, sparse)
