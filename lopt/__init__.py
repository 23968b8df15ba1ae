"""Learned optimizers, and how to differentiate through them.

    import lopt
    opt = lopt.load("champion", num_steps=2_000)
    state = opt.init(params)
    updates, state = opt.update(grads, state, params, value=loss)   # an optax transformation

This package imports JAX, optax and pydantic; it does no I/O of its own. What `load` needs from a disk it asks a
registered resolver for (see `lopt.loading`).
"""

from __future__ import annotations

from lopt.architectures import ARCHITECTURES
from lopt.baselines import BASELINES, LEARNING_RATE_GRID
from lopt.config import FrozenConfig, derive
from lopt.estimators import ESTIMATORS
from lopt.loading import load, load_theta
from lopt.registry import UnknownNameError
from lopt.types import (
    LearnedOptimizer,
    MetaGradient,
    MetaGradientEstimator,
    Task,
    TaskFamily,
    TaskState,
)

__all__ = [
    "ARCHITECTURES",
    "BASELINES",
    "ESTIMATORS",
    "LEARNING_RATE_GRID",
    "FrozenConfig",
    "LearnedOptimizer",
    "MetaGradient",
    "MetaGradientEstimator",
    "Task",
    "TaskFamily",
    "TaskState",
    "UnknownNameError",
    "derive",
    "load",
    "load_theta",
]
