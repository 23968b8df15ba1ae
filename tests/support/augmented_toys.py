"""Toy tasks with and without an augmentation, and what an optimizer is shown of them."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from toy_tasks import ToyFamily, ToyTask

from lopt.training_gradient import value_and_grad
from lopt.types import TaskState
from task_generator.augmentations import AugmentationConfig

KEY = jax.random.key(0)


def toy(config: AugmentationConfig, **fields: Any) -> tuple[ToyTask, Any]:
    """The plain task, and the augmented one."""
    family = ToyFamily(**fields)
    dynamic = family.sample_dynamic(KEY)
    return family.task(dynamic), config.apply(family).task(dynamic)


def shown(task: Any, state: TaskState, key: jax.Array = KEY) -> tuple[Any, Any, Any]:
    """Loss, next state and gradient on one batch."""
    (loss, after), grads = value_and_grad(task, state, key, task.batch(KEY))
    return loss, after, grads


def assert_mean(draws: np.ndarray, expected: np.ndarray, sigmas: float = 5.0) -> None:
    """The mean of independent draws [M, …] is `expected` up to `sigmas` standard errors."""
    error = draws.std(axis=0, ddof=1) / math.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - expected) < sigmas * error).all()


def same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)
