"""A task around another: everything is the inner task's, until a subclass changes something."""

from __future__ import annotations

from lopt.training_gradient import LossAndGradient, value_and_grad
from lopt.types import Batch, PRNGKey, Scalar, Split, Task, TaskState


class DelegatingTask:
    """A subclass is a dataclass with a field `inner`."""

    inner: Task

    def init(self, key: PRNGKey) -> TaskState:
        """Returns the inner task's fresh state."""
        return self.inner.init(key)

    def batch(self, key: PRNGKey, split: Split = "train") -> Batch:
        """Returns the inner task's batch."""
        return self.inner.batch(key, split)

    def loss(self, state: TaskState, key: PRNGKey, batch: Batch) -> tuple[Scalar, TaskState]:
        """Returns the inner task's loss and next state."""
        return self.inner.loss(state, key, batch)

    def value_and_grad(self, state: TaskState, key: PRNGKey, batch: Batch) -> LossAndGradient:
        """Returns what the inner task shows in training."""
        return value_and_grad(self.inner, state, key, batch)

    def normalize(self, loss: Scalar) -> Scalar:
        """Returns the inner task's normalised loss."""
        return self.inner.normalize(loss)
