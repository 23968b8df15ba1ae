"""Meta-training on real workers: neither their number nor the death of one changes a bit of theta."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from curriculum.learner import LearnerState, init_learner
from curriculum.meta_train import OuterStepDone, meta_train
from curriculum.phase import Phase, ThetaOptimizerConfig
from curriculum.worker import WorkerPool
from flows.dask_cluster import worker_pids
from flows.dask_pool import DaskWorkerPool
from flows.settings import RuntimeSettings
from lopt.architectures import ARCHITECTURES
from lopt.estimators.full_es import FullEsConfig
from runtime_model.rejection import ProblemSizeThresholds
from task_generator.families import FAMILIES
from task_generator.task_config import TaskConfig

pytestmark = pytest.mark.integration

PHASE = Phase(
    name="tiny",
    summary="for tests",
    distribution="demo",
    problem_size=ProblemSizeThresholds(seconds=(1e-3,), probabilities=(1.0,)),
    num_static_configs=2,
    estimator=FullEsConfig(
        sigma=0.03, min_horizon=3, max_horizon=5, num_tasks=1, num_pairs=1, num_final_batches=1
    ),
    theta_optimizer=ThetaOptimizerConfig(learning_rate=1e-2, gradient_clip=5.0, warm_up=1),
    outer_steps=6,
    validate_every=6,
)
TASKS = tuple(
    TaskConfig(
        family=FAMILIES["mlp"].model_validate(
            {
                "hidden_size": size,
                "num_layers": 1,
                "image_size": 4,
                "batch_size": 8,
                "dataset": "digits",
                "activation": "relu",
                "initializer": "normal",
            }
        )
    )
    for size in (8, 9)
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")  # with one compilation cache for all pools


@pytest.fixture(autouse=True, scope="module")
def optax_promotes() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def train(pool: WorkerPool, killer: threading.Event | None = None) -> LearnerState:
    optimizer = ARCHITECTURES["pacer"]()
    state = init_learner(PHASE, optimizer.build().init_theta(jax.random.key(0)))
    for event in meta_train(PHASE, TASKS, optimizer, state, pool, seed=0):
        state = event.state
        if killer is not None and isinstance(event, OuterStepDone):
            killer.set()
    return state


def bits(state: LearnerState) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


def open_pool(home: Path, num_workers: int) -> DaskWorkerPool:
    return DaskWorkerPool.open(RuntimeSettings(home=home, num_workers=num_workers, memory_limit="2GiB"))


@pytest.fixture(scope="module")
def expected(home: Path) -> list[bytes]:
    with open_pool(home, 1) as pool:
        return bits(train(pool))


def test_two_workers_find_the_theta_of_one(home: Path, expected: list[bytes]) -> None:
    with open_pool(home, 2) as pool:
        assert bits(train(pool)) == expected


def test_a_worker_killed_on_the_way_changes_nothing(home: Path, expected: list[bytes]) -> None:
    with open_pool(home, 2) as pool:
        begun = threading.Event()
        victim = worker_pids(pool._cluster)[0]

        def kill() -> None:
            begun.wait(120)
            time.sleep(0.01)  # into the next outer step
            os.kill(victim, signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        found = bits(train(pool, begun))
        thread.join()
        assert found == expected
        assert victim not in worker_pids(pool._cluster)
