"""A family whose tasks are changed and whose dynamic configurations are not: what most augmentations are.

An augmentation is then a `WrappingConfig` with its numbers and a `WrappedTask` with the one or two methods that it
changes. A wrapped task asks the task inside for its training gradient through `lopt.training_gradient`, so that
wrappers compose in any order.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Generic, TypeVar

import jax
import jax.numpy as jnp

from lopt.delegating_task import DelegatingTask
from lopt.types import Dynamic, PRNGKey, PyTree, Task, TaskFamily
from task_generator.augmentations.base import AugmentationConfig


class WrappingConfig(AugmentationConfig):
    """An augmentation that changes a family one task at a time."""

    def apply(self, family: TaskFamily) -> TaskFamily:
        """Returns the family of wrapped tasks."""
        return WrappedFamily(self, family)

    def wrap(self, task: Task) -> Task:
        """Returns the transformed task."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class WrappedFamily:
    """The inner family's dynamic configurations, with transformed tasks."""

    config: WrappingConfig
    inner: TaskFamily

    def sample_dynamic(self, key: PRNGKey) -> Dynamic:
        """Draws one of the inner family's dynamic configurations."""
        return self.inner.sample_dynamic(key)

    def dynamic_axes(self) -> Dynamic:
        """Returns the inner family's axes."""
        return self.inner.dynamic_axes()

    def task(self, dynamic: Dynamic) -> Task:
        """Returns the transformed problem that `dynamic` selects."""
        return self.config.wrap(self.inner.task(dynamic))


jax.tree_util.register_dataclass(WrappedFamily, data_fields=["inner"], meta_fields=["config"])

ConfigT = TypeVar("ConfigT", bound=AugmentationConfig)


@dataclasses.dataclass(frozen=True)
class WrappedTask(DelegatingTask, Generic[ConfigT]):
    """The task inside, until a subclass changes something."""

    config: ConfigT
    inner: Task


def own_key(key: PRNGKey, augmentation: str) -> PRNGKey:
    """Returns an augmentation's randomness in a step.

    Derived, not split off: the inner task still gets `key` itself, so that its loss has the same dropout in
    training as in `loss`.
    """
    return jax.random.fold_in(key, zlib.crc32(augmentation.encode()))


def to_float32(tree: PyTree) -> PyTree:
    """Returns the tree in float32, whatever the precision a task computes in."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def cast_like(tree: PyTree, template: PyTree) -> PyTree:
    """Returns the tree with the template's types; what has them is left alone."""
    return jax.tree.map(lambda x, like: x if x.dtype == like.dtype else x.astype(like.dtype), tree, template)
