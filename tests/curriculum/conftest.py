"""A phase that takes a second, and the tasks it holds."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest

from curriculum.phase import Phase, ThetaOptimizerConfig
from lopt.estimators.full_es import FullEsConfig
from runtime_model.rejection import ProblemSizeThresholds
from task_generator.families import MlpConfig
from task_generator.task_config import TaskConfig


@pytest.fixture(autouse=True, scope="module")
def optax_promotes() -> Iterator[None]:
    """optax's bias corrections mix float32 and int32, so what calls `optax.adam` cannot be tested strictly."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def tiny_phase() -> Phase:
    return Phase(
        name="tiny",
        summary="for tests",
        distribution="demo",
        problem_size=ProblemSizeThresholds(seconds=(1e-3,), probabilities=(1.0,)),
        num_static_configs=2,
        estimator=FullEsConfig(
            sigma=0.03, min_horizon=3, max_horizon=5, num_tasks=2, num_pairs=1, num_final_batches=1
        ),
        theta_optimizer=ThetaOptimizerConfig(learning_rate=1e-2, gradient_clip=5.0, warm_up=1),
        outer_steps=4,
        validate_every=2,
        checkpoint_every=2,
    )


@pytest.fixture(scope="session")
def tiny_tasks() -> tuple[TaskConfig, ...]:
    return tuple(
        TaskConfig(
            family=MlpConfig(
                hidden_size=8,
                num_layers=1,
                image_size=4,
                batch_size=batch_size,
                dataset="digits",
                activation="relu",
                initializer="normal",
            )
        )
        for batch_size in (4, 8)
    )
