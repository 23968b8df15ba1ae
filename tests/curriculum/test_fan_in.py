"""Aggregators between workers and learner: sums of one age, free workers at once, nothing lost or counted twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest

from curriculum.asynchronous.fan_in import FanInStream
from curriculum.asynchronous.simulated_stream import SimulatedStream
from curriculum.events import OuterStepDone, TaskLeftOut, Validated
from curriculum.learner import init_learner
from curriculum.meta_train_asynchronously import meta_train_asynchronously
from curriculum.phase import Phase
from curriculum.work_stream import Finished, WorkStream
from curriculum.worker import WorkResult, WorkUnit
from lopt.architectures.pacer import PacerConfig
from lopt.config import derive
from task_generator.task_config import TaskConfig

NUM_WORKERS, GROUP, BATCH = 16, 4, 32
THETA = {"a": np.zeros(5, np.float32)}


@pytest.fixture
def phase(tiny_phase: Phase) -> Phase:
    rare = {"validate_every": 12, "checkpoint_every": 12}
    return derive(
        tiny_phase, mode="asynchronous", outer_steps=12, batch_size=BATCH, max_staleness=100, **rare
    )


def number_of(unit: WorkUnit) -> float:
    return float(unit.seed[-2] % 7)


def numbered(unit: WorkUnit, theta: Any) -> WorkResult:
    """Every number of the gradient is the unit's loss."""
    gradient = jax.tree.map(lambda leaf: np.full_like(leaf, number_of(unit)), theta)
    return WorkResult(gradient, number_of(unit), 10.0, {}, squared_norm=1.0)


def uneven(unit: WorkUnit, worker: str) -> float:
    """Some units take a hundred times as long as others."""
    return 20.0 if unit.seed[-2] % 11 == 0 else 0.2


class Counting:
    """A stream that counts what reaches the learner."""

    def __init__(self, inner: WorkStream) -> None:
        self.inner, self.results, self.largest = inner, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def wait(self, seconds: float) -> list[Finished]:
        found = self.inner.wait(seconds)
        whole = [one for one in found if not one.is_under_way]
        self.results += len(whole)
        self.largest = max([self.largest, *(len(one.others) + 1 for one in whole)])
        return found


def group_of(worker: str) -> int:
    return int(worker[1:]) // GROUP


def run(phase: Phase, tasks: Sequence[TaskConfig], stream: Any, simulated: SimulatedStream) -> list[Any]:
    state = init_learner(phase, THETA)
    return list(
        meta_train_asynchronously(
            phase, tasks, PacerConfig(), state, stream, seed=5, clock=lambda: simulated.now
        )
    )


def layered(simulated: SimulatedStream, layers: int) -> Counting:
    stream: WorkStream = simulated
    for layer in range(layers):
        # The first adds groups of workers up, the second groups of those.
        group = group_of if layer == 0 else lambda worker: group_of(worker) // 2
        stream = FanInStream(stream, GROUP * 2**layer, group, lambda: simulated.now)
    return Counting(stream)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_the_mean_is_that_of_all_units_and_the_learner_takes_fewer(
    layers: int, phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    simulated = SimulatedStream(NUM_WORKERS, uneven, result=numbered)
    stream = layered(simulated, layers)
    events = run(phase, tiny_tasks, stream, simulated)
    done = [event for event in events if isinstance(event, OuterStepDone)]
    assert [event.outer_step for event in done] == list(range(1, 13))
    for event in done:
        np.testing.assert_allclose(event.gradient_norm, event.meta_loss * np.sqrt(5), rtol=1e-6)
    assert len([event for event in events if isinstance(event, Validated)]) == 2
    units = sum(event.num_inner_steps for event in done) / 10
    assert units >= 12 * BATCH
    if layers:
        assert stream.results < 0.5 * units
        assert GROUP * 2 ** (layers - 1) <= stream.largest < 2 * GROUP * 2 ** (layers - 1)
    assert simulated.most_pending <= 2 * NUM_WORKERS


def test_fast_workers_do_not_wait_for_slow_ones(phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    """As long as without aggregators, but for what an answer may wait."""
    times = []
    for layers in (0, 1):
        simulated = SimulatedStream(NUM_WORKERS, uneven, result=numbered)
        run(phase, tiny_tasks, layered(simulated, layers), simulated)
        times.append(simulated.now)
    assert times[1] < 1.2 * times[0] + 2.0


def test_failures_go_through_and_what_was_given_up_is_not_waited_for(
    phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    second = tiny_tasks[1].canonical_json()
    simulated = SimulatedStream(
        NUM_WORKERS,
        lambda unit, worker: 1e9 if unit.seed[-2] == 40 else 1.0,
        fails=lambda unit, worker: "no" if unit.task == second else "",
        result=numbered,
    )
    patient = derive(phase, unit_timeout=5.0, outer_steps=20, validate_every=20)
    events = run(patient, tiny_tasks, layered(simulated, 1), simulated)
    (left_out,) = [event for event in events if isinstance(event, TaskLeftOut)]
    assert left_out.reasons == ("no",) * 3
    assert [event.outer_step for event in events if isinstance(event, OuterStepDone)][-1] == 20
    assert simulated.given_up
