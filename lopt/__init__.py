"""Learned optimizers, and how to differentiate through them.

    import lopt
    opt = lopt.load("champion", num_steps=2_000)
    state = opt.init(params)
    updates, state = opt.update(grads, state, params, value=loss)   # an optax transformation

This package imports JAX, optax and pydantic. What `load` needs from a registry it asks a registered resolver for
(see `lopt.use.loading`); the only files it reads itself are weights (`lopt.use.shipped`, `lopt.published`).
"""

from __future__ import annotations

from lopt import published
from lopt.architectures import ARCHITECTURES
from lopt.baselines import BASELINES, LEARNING_RATE_GRID
from lopt.config import FrozenConfig, derive
from lopt.estimators import ESTIMATORS
from lopt.gradient_location import gradient_params
from lopt.registry import UnknownNameError
from lopt.types import (
    LearnedOptimizer,
    MetaGradient,
    MetaGradientEstimator,
    Task,
    TaskFamily,
    TaskState,
)
from lopt.use import shipped
from lopt.use.binding import bind, rebind
from lopt.use.continuation import continue_run
from lopt.use.guard_rails import accumulate_above, l2_weight_decay, skip_non_finite
from lopt.use.layerwise import scan_over_layers
from lopt.use.loading import load, load_theta
from lopt.use.monitoring import readings, step_size_monitor
from lopt.use.schedule_player import HyperparameterSchedule, export_schedule, play_schedule
from lopt.use.sharding import init_sharded, keep_sharded, state_sharding
from lopt.validation_loss import validation_due

__all__ = [
    "ARCHITECTURES",
    "BASELINES",
    "ESTIMATORS",
    "LEARNING_RATE_GRID",
    "FrozenConfig",
    "HyperparameterSchedule",
    "LearnedOptimizer",
    "MetaGradient",
    "MetaGradientEstimator",
    "Task",
    "TaskFamily",
    "TaskState",
    "UnknownNameError",
    "accumulate_above",
    "bind",
    "continue_run",
    "derive",
    "export_schedule",
    "gradient_params",
    "init_sharded",
    "keep_sharded",
    "l2_weight_decay",
    "load",
    "load_theta",
    "play_schedule",
    "published",
    "readings",
    "rebind",
    "scan_over_layers",
    "shipped",
    "skip_non_finite",
    "state_sharding",
    "step_size_monitor",
    "validation_due",
]
