"""What units are expected to take: the steps that they make, priced by what came back; it orders work, no more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import pytest
from asynchronous_runs import CONFIG, THETA, run

from curriculum.asynchronous.simulated_stream import SimulatedStream, stand_in_result
from curriculum.events import OuterStepDone, Validated
from curriculum.learner import LearnerState, init_learner
from curriculum.meta_train import meta_train
from curriculum.phase import Phase
from curriculum.unit_cost import UnitCost
from curriculum.units_of_work import VALIDATION, root_of, work_units
from curriculum.work_plan import WorkPlan, inner_steps
from curriculum.worker import InProcessWorkerPool, WorkResult, WorkUnit, init_states
from lopt.config import derive
from lopt.estimators.evolution import TasksConfig
from lopt.estimators.full_es import FullEsConfig
from lopt.estimators.persistent_es import PersistentEsConfig, PersistentState
from lopt.estimators.trajectory import Trajectory
from lopt.outer_schedule import PiecewiseLinear
from task_generator.families import MlpConfig
from task_generator.task_config import TaskConfig


class CostliestFirst(InProcessWorkerPool):
    """Runs the costliest units first, as a cluster would, and keeps what it was told and what came of it."""

    def __init__(self, is_pretending: bool = False) -> None:
        self.is_pretending = is_pretending
        self.costs: list[list[float]] = []
        self.started: list[list[int]] = []
        self.results: list[list[WorkResult]] = []

    def run_all(
        self,
        fn: Any,
        payloads: Sequence[tuple[Any, ...]],
        *,
        affinity: Sequence[str] | None = None,
        costs: Sequence[float] | None = None,
    ) -> list[Any]:
        assert costs is not None
        started = sorted(range(len(payloads)), key=lambda index: -costs[index])
        compute = (lambda unit, theta, state: stand_in_result(unit, theta)) if self.is_pretending else fn
        results = {index: compute(*payloads[index]) for index in started}
        self.costs.append(list(costs))
        self.started.append(started)
        self.results.append([results[index] for index in range(len(payloads))])
        return self.results[-1]


def train(
    phase: Phase, tasks: Sequence[TaskConfig], pool: InProcessWorkerPool, seconds: Sequence[float] | None
) -> LearnerState:
    theta = CONFIG.build().init_theta(jax.random.key(0))
    state = init_learner(phase, theta, init_states(tasks, phase.estimator, CONFIG, theta))
    events = list(meta_train(phase, tasks, CONFIG, state, pool, seed=5, task_seconds=seconds))
    assert any(isinstance(event, Validated) for event in events)
    assert any(isinstance(event, OuterStepDone) for event in events)
    return events[-1].state


def units_of(
    tasks: Sequence[TaskConfig], estimator: TasksConfig, seed: tuple[int, ...] = (5, 1), outer_step: int = 0
) -> list[WorkUnit]:
    return work_units(estimator, tasks, CONFIG, seed=seed, outer_step=outer_step)


def result(seconds: float, num_inner_steps: float) -> WorkResult:
    return WorkResult((), 1.0, num_inner_steps, {}, cost=UnitCost(compile_seconds=9.0, run_seconds=seconds))


def test_of_equal_tasks_the_longer_starts_first(
    tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    """Horizons of 10 to 1000 steps, which the units draw and the learner foresees, growing ones too."""
    estimator = derive(
        tiny_phase.estimator,
        min_horizon=10,
        max_horizon=1000,
        num_tasks=1,
        horizon_limit=PiecewiseLinear.linear(100, 1000, num_steps=2),
    )
    phase = derive(tiny_phase, num_static_configs=4, estimator=estimator)
    pool = CostliestFirst()
    train(phase, tiny_tasks[:1] * 4, pool, [1e-5] * 4)
    assert len(pool.costs) == 7  # four outer steps, and the theta of three is validated
    for costs, started, results in zip(pool.costs, pool.started, pool.results, strict=True):
        horizons = np.array([one.metrics["horizon"] for one in results])
        assert np.all(np.diff(horizons[started]) <= 0)
        np.testing.assert_allclose(np.divide(costs, costs[0]), horizons / horizons[0], rtol=1e-9)
    every = np.array([[one.metrics["horizon"] for one in results] for results in pool.results])
    assert every[1].max() <= 100  # the first outer step, at the limit's start
    assert every.max() / every.min() > 10


def test_costs_change_no_bit_of_theta(tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    without = train(tiny_phase, tiny_tasks, InProcessWorkerPool(), None)
    for seconds in ([1e-6, 1.0], [1.0, 1e-6]):
        pool = CostliestFirst()
        given = train(tiny_phase, tiny_tasks, pool, seconds)
        assert all(started == ([1, 0] if seconds[1] > seconds[0] else [0, 1]) for started in pool.started)
        for ours, theirs in zip(jax.tree.leaves(given), jax.tree.leaves(without), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_gradients_are_predicted_and_the_update_is_measured(tiny_tasks: tuple[TaskConfig, ...]) -> None:
    """A unit of 100 steps of a network of n parameters takes 100 · (1 ms + 2 µs · n), compilation apart."""
    small, large = tiny_tasks[0], TaskConfig(family=derive(tiny_tasks[0].family, hidden_size=64))
    sizes = [task.approximate_cost()["num_params"] for task in (small, large)]
    estimator = FullEsConfig(sigma=0.1, min_horizon=50, max_horizon=50, num_tasks=1, num_pairs=1)
    plan = WorkPlan((small, large), [1e-3, 1e-3])
    units = units_of((small, large), estimator)
    assert plan.costs(estimator, units) == pytest.approx([50e-3, 50e-3])  # what is known before any came back
    for task, size in enumerate(sizes):
        plan.take(task, result(100 * (1e-3 + 2e-6 * size), 100.0))
    assert plan.update_price == pytest.approx(2e-6)
    assert plan.costs(estimator, units) == pytest.approx([50 * (1e-3 + 2e-6 * size) for size in sizes])
    for task in (0, 1):  # faster than predicted, or not measured: nothing is left for the update
        plan.take(task, result(0.0, 100.0))
    assert plan.update_price == 0.0


def test_a_busy_moment_does_not_price_the_update(tiny_tasks: tuple[TaskConfig, ...]) -> None:
    tasks = tiny_tasks[:1] * 3
    size = tasks[0].approximate_cost()["num_params"]
    plan = WorkPlan(tasks, [1e-3] * 3)
    for task, extra in enumerate((2e-6, 3600.0, 2e-6)):
        plan.take(task, result(1e-3 + extra * size, 1.0))
    assert plan.update_price == pytest.approx(2e-6)


WINDOWED = PersistentEsConfig(
    sigma=0.1, min_horizon=100, max_horizon=100, unroll_length=30, num_tasks=1, num_pairs=1, aggregate="mean"
)


def at(step: int, stop: int) -> Trajectory:
    whole = [np.int32(number) for number in (100, stop, step, 1)]
    return Trajectory(None, None, *whole, None, None)


@pytest.mark.parametrize(
    ("changes", "outer_step", "expected"),
    [
        # In the middle, five steps before the end, at the end.
        ({}, 0, [30.0, 5.0, 30.0]),
        ({"unroll_limit": PiecewiseLinear.linear(10, 30, num_steps=4)}, 2, [20.0, 5.0, 20.0]),
        ({"min_unroll_length": 21}, 0, [25.5, 5.0, 25.5]),  # 21 to 30, equally likely
    ],
)
def test_a_window_is_as_long_as_expected_or_as_what_is_left(
    changes: dict[str, Any], outer_step: int, expected: list[float], tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    estimator = derive(WINDOWED, **changes)
    units = units_of(tiny_tasks[:1] * 3, estimator, outer_step=outer_step)
    states = [PersistentState(at(*where), None) for where in ((40, 100), (95, 100), (100, 100))]
    np.testing.assert_allclose(inner_steps(estimator, units, states), expected, rtol=1e-2)


def test_trajectories_of_a_run_are_looked_at(tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    """Windows of 2 in horizons of 5, as the units make them: the third step has one left."""
    fields = {"min_horizon": 5, "max_horizon": 5, "unroll_length": 2, "stagger": False}
    estimator = derive(WINDOWED, **fields, num_final_batches=1)
    pool = CostliestFirst()
    train(derive(tiny_phase, estimator=estimator), tiny_tasks[:1] * 2, pool, [1.0, 2.0])
    windows = [one[0].metrics["window"] for one in pool.results if "window" in one[0].metrics]
    assert windows == [2.0, 2.0, 1.0, 2.0]
    both = zip(pool.costs, pool.results, strict=True)
    assert [costs[0] for costs, one in both if "window" in one[0].metrics] == windows  # of a second each


def wide(tiny_tasks: tuple[TaskConfig, ...], count: int) -> tuple[TaskConfig, ...]:
    family = tiny_tasks[0].family
    assert isinstance(family, MlpConfig)
    return tuple(TaskConfig(family=derive(family, hidden_size=8 + number)) for number in range(count))


def test_an_asynchronous_validation_sends_the_longest_first(
    tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    """Five tasks, the later the slower; without predictions they come as they are numbered."""
    tasks, seconds = wide(tiny_tasks, 5), [1e-5 * 3**number for number in range(5)]
    long = derive(tiny_phase.estimator, min_horizon=10, max_horizon=1000)
    phase = derive(tiny_phase, mode="asynchronous", num_static_configs=5, estimator=long)
    units = work_units(long, tasks, CONFIG, seed=(*root_of(phase, 5), VALIDATION), sigma=0.0)
    costs = dict(zip([unit.task for unit in units], WorkPlan(tasks, seconds).costs(long, units), strict=True))
    order = {}
    for task_seconds in (None, seconds):
        measured: list[str] = []

        def note(unit: WorkUnit, theta: Any, measured: list[str] = measured) -> WorkResult:
            measured.extend([unit.task] if unit.sigma == 0.0 else [])
            return stand_in_result(unit, theta)

        events = run(phase, tasks, SimulatedStream(1, result=note), task_seconds=task_seconds)
        assert sum(isinstance(event, Validated) for event in events) == 3
        order[task_seconds is not None] = measured
    assert order[False] == [task.canonical_json() for task in tasks] * 3
    for first in range(0, 15, 5):
        sent = [costs[task] for task in order[True][first : first + 5]]
        assert all(earlier >= later for earlier, later in pairwise(sent))
    assert order[True] != order[False]


def test_predictions_change_nothing_about_what_is_trained_on(
    tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    """With one worker who is first is settled: the same units of the same tasks, in the same order."""
    tasks = wide(tiny_tasks, 5)
    phase = derive(tiny_phase, mode="asynchronous", num_static_configs=5)
    trained: list[list[tuple[str, int]]] = []
    for task_seconds in (None, [1.0, 5.0, 2.0, 4.0, 3.0]):
        trained.append([])

        def note(unit: WorkUnit, theta: Any, own: list[tuple[str, int]] = trained[-1]) -> WorkResult:
            own.extend([(unit.task, unit.outer_step)] if unit.sigma is None else [])
            return stand_in_result(unit, theta)

        events = run(phase, tasks, SimulatedStream(1, result=note), task_seconds=task_seconds)
        assert events[-1].outer_step == phase.outer_steps
        assert set(THETA) == set(events[-1].state.theta)
    assert trained[0] == trained[1]
