"""Meta-training on real workers: neither their number nor the death of one changes a bit of theta."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from curriculum.events import LearnerEvent, OuterStepDone, Validated
from curriculum.learner import LearnerState, init_learner
from curriculum.meta_train import meta_train
from curriculum.meta_train_asynchronously import meta_train_asynchronously
from curriculum.phase import Phase, ThetaOptimizerConfig
from curriculum.worker import WorkerPool
from flows.errors import SchedulerUnreachableError
from flows.settings import RuntimeSettings
from flows.workers.cluster import worker_pids
from flows.workers.pool import DaskWorkerPool
from lopt.architectures import ARCHITECTURES
from lopt.config import derive
from lopt.estimators.full_es import FullEsConfig
from runtime_model.rejection import ProblemSizeThresholds
from task_generator.families import FAMILIES
from task_generator.task_config import TaskConfig
from tests.support.dask_processes import scheduler_process

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


def train_asynchronously(
    pool: DaskWorkerPool, phase: Phase, on_step: Callable[[int], None] = lambda _: None
) -> list[LearnerEvent]:
    optimizer = ARCHITECTURES["pacer"]()
    state = init_learner(phase, optimizer.build().init_theta(jax.random.key(0)))
    stream = pool.stream()
    events = []
    for event in meta_train_asynchronously(phase, TASKS, optimizer, state, stream, seed=0):
        events.append(event)
        if isinstance(event, OuterStepDone):
            on_step(event.outer_step)
    stream.close()
    return events


@pytest.mark.slow
def test_asynchronous_workers_are_killed_again_and_again(home: Path) -> None:
    """After the fourth step one is killed, after the eighth both: what is lost is tried again, and it ends."""
    phase = derive(PHASE, mode="asynchronous", outer_steps=12, validate_every=12, max_tries=20)
    with open_pool(home, 2) as pool:

        def kill(outer_step: int) -> None:
            pids = worker_pids(pool._cluster)
            if outer_step % 4 == 0 and outer_step < 12 and pids:
                for pid in pids if outer_step == 8 else pids[:1]:
                    os.kill(pid, signal.SIGKILL)

        events = train_asynchronously(pool, phase, kill)
    steps = [event for event in events if isinstance(event, OuterStepDone)]
    assert [event.outer_step for event in steps] == list(range(1, 13))
    assert steps[-1].metrics["failed_units"] >= 1
    assert all(np.isfinite(event.meta_loss) for event in steps)
    first, last = (event for event in events if isinstance(event, Validated))
    assert (len(first.per_task), len(last.per_task)) == (2, 2)


def test_an_asynchronous_run_ends_when_the_scheduler_is_gone(home: Path) -> None:
    """One clear error, within a minute; no hang."""
    phase = derive(
        PHASE, mode="asynchronous", outer_steps=10_000, validate_every=10_000, checkpoint_every=10_000
    )
    with scheduler_process() as (address, process):
        pool = DaskWorkerPool.open(RuntimeSettings(home=home, scheduler=address))
        killed_at: list[float] = []

        def kill(outer_step: int) -> None:
            if outer_step == 3:
                os.killpg(process.pid, signal.SIGKILL)
                killed_at.append(time.monotonic())

        with pytest.raises(SchedulerUnreachableError, match="the Dask scheduler is gone"):
            train_asynchronously(pool, phase, kill)
        assert time.monotonic() - killed_at[0] < 60
        pool.close()
