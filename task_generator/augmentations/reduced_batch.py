"""Smaller batches: noisier gradients of the same problem.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.5, item 3. The evaluation splits' batches shrink too: the batch size
is the task's.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import jax
from pydantic import Field

from lopt.types import Batch, PRNGKey, Split, Task
from task_generator.augmentations.wrapped import WrappedTask, WrappingConfig
from task_generator.distributions import Distribution, Uniform
from task_generator.families.base import FamilyConfig


class ReducedBatchConfig(WrappingConfig):
    """Keeps the first `fraction` of every batch, and one example at least."""

    augmentation: Literal["reduced_batch"] = "reduced_batch"
    fraction: float = Field(gt=0, le=1, description="Of the examples that are kept.")

    probability: ClassVar[float] = 0.2

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the paper's range."""
        return {"fraction": Uniform(low=0.01, high=1.0)}

    def refuses(self, family: FamilyConfig) -> str | None:
        """Refuses families whose batches are not made of examples."""
        if family.has_examples:
            return None
        return "its batches are not made of examples that could be left out. Leave out 'reduced_batch'."

    def cost(self, cost: dict[str, float]) -> dict[str, float]:
        """Returns the cost of the examples that are kept, whole ones as in `ReducedBatchTask.batch`."""
        share = max(1, int(cost["examples_per_step"] * self.fraction)) / cost["examples_per_step"]
        return {name: value * (share if name.endswith("_per_step") else 1.0) for name, value in cost.items()}

    def wrap(self, task: Task) -> Task:
        """Returns the task on smaller batches."""
        return ReducedBatchTask(self, task)

    def label(self) -> str:
        """Returns e.g. "batch × 0.25"."""
        return f"batch × {self.fraction:.2g}"


class ReducedBatchTask(WrappedTask[ReducedBatchConfig]):
    """A task on the beginnings of its batches."""

    def batch(self, key: PRNGKey, split: Split = "train") -> Batch:
        """Returns the first max(1, ⌊batch · fraction⌋) examples; examples are drawn in no order."""
        kept = lambda size: max(1, int(size * self.config.fraction))
        return jax.tree.map(lambda leaf: leaf[: kept(leaf.shape[0])], self.inner.batch(key, split))
