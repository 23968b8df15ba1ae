"""A run-time model's predictions reach whoever orders the work, in both modes; nothing is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import flows.training.plan
from curriculum.asynchronous.simulated_stream import SimulatedStream, stand_in_result
from curriculum.phase import Phase
from curriculum.phases import CURRICULA
from curriculum.work_plan import WorkPlan
from curriculum.worker import MAX_COMPILED_PROGRAMS, InProcessWorkerPool, WorkResult, WorkUnit
from flows.parameters import TrainParameters
from flows.progress import Reporter
from flows.session import Session
from flows.settings import RuntimeSettings
from flows.training.plan import PhasePlan, plan_phase
from flows.training.runner import crowding_remark, run_phase
from lopt.config import derive
from runtime_model.guess import guess_from_flops
from runtime_model.prediction import Prediction
from storage.tracking import InMemoryTracker
from task_generator.task_config import TaskConfig

SHORTEST, LONGEST, NUM_TASKS = 10, 1000, 4


class Recording(InProcessWorkerPool):
    """Answers with stand-ins, and keeps what it was asked."""

    def __init__(self) -> None:
        self.units: list[list[WorkUnit]] = []
        self.costs: list[Sequence[float] | None] = []
        self.streamed: list[WorkUnit] = []

    def run_all(
        self, fn: Any, payloads: Sequence[Any], *, affinity: Any = None, costs: Any = None
    ) -> list[Any]:
        self.units.append([payload[0] for payload in payloads])
        self.costs.append(costs)
        return [stand_in_result(unit, theta) for unit, theta, _ in payloads]

    def stream(self) -> SimulatedStream:
        return SimulatedStream(1, result=self._note)

    def _note(self, unit: WorkUnit, theta: Any) -> WorkResult:
        self.streamed.append(unit)
        return stand_in_result(unit, theta)

    def close(self) -> None: ...


class TwiceAsSlow:
    """Stands in for a model that was fitted to timings of this machine."""

    def predict(self, configs: Sequence[TaskConfig]) -> Prediction:
        guess = guess_from_flops(configs)
        return guess._replace(seconds=2 * guess.seconds)


def train(
    mode: str, tiny: tuple[Phase, ...], home: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Recording, PhasePlan]:
    estimator = derive(tiny[0].estimator, min_horizon=SHORTEST, max_horizon=LONGEST)
    changes = {"estimator": estimator, "num_static_configs": NUM_TASKS, "max_num_params": 4_000}
    monkeypatch.setitem(CURRICULA, "demo", (derive(tiny[0], **changes),))
    pool, quiet = Recording(), Reporter(Console(quiet=True))
    session = Session(
        RuntimeSettings(home=home), quiet, open_pool=lambda _: pool, open_tracker=lambda _: InMemoryTracker()
    )
    plan = plan_phase(TrainParameters(phase="first", mode=mode), session)
    run_phase(plan, session)
    return pool, plan


def test_predicted_seconds_reach_the_pool(
    tiny: tuple[Phase, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times whole numbers of steps, and nothing for updates, because the stand-ins took no time."""
    pool, plan = train("synchronous", tiny, tmp_path, monkeypatch)
    assert plan.task_seconds is not None
    assert len(set(plan.task_seconds)) == NUM_TASKS
    assert len(pool.costs) == 4 + 3  # outer steps and validations
    for costs in pool.costs:
        assert costs is not None
        steps = np.divide(costs, plan.task_seconds)
        np.testing.assert_allclose(steps, np.round(steps), rtol=1e-9)
        assert SHORTEST <= steps.min() <= steps.max() <= LONGEST


def test_predicted_seconds_order_an_asynchronous_validation(
    tiny: tuple[Phase, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, plan = train("asynchronous", tiny, tmp_path, monkeypatch)
    assert plan.task_seconds is not None
    sent = [unit for unit in pool.streamed if unit.sigma == 0.0][:NUM_TASKS]  # the first validation's
    units = sorted(sent, key=lambda unit: unit.seed)
    assert [unit.task for unit in units] == [task.canonical_json() for task in plan.tasks]
    costs = WorkPlan(plan.tasks, plan.task_seconds).costs(plan.phase.estimator, units)
    costliest_first = sorted(range(NUM_TASKS), key=lambda task: -costs[task])
    assert costliest_first != list(range(NUM_TASKS))
    assert [unit.seed[-1] for unit in sent] == costliest_first


def test_whole_tasks_need_no_fit_and_a_fit_changes_neither_them_nor_the_run(
    tiny: tuple[Phase, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is chosen by run times there: the first training in a new workspace starts without a fit."""
    whole = derive(tiny[0], distribution="broad", num_static_configs=3)
    monkeypatch.setitem(CURRICULA, "demo", (whole,))
    monkeypatch.setattr(
        flows.training.plan, "load_runtime_model", lambda _: pytest.fail("must not be fitted")
    )
    session = Session(
        RuntimeSettings(home=tmp_path),
        Reporter(Console(quiet=True)),
        open_tracker=lambda _: InMemoryTracker(),
    )
    before = plan_phase(TrainParameters(phase="first"), session)
    assert before.tasks == whole.whole_tasks()[:3]
    seconds = guess_from_flops(before.tasks).seconds
    assert before.task_seconds == tuple(seconds.tolist())
    assert len(set(before.task_seconds)) == 3
    fitted = TwiceAsSlow()
    monkeypatch.setattr(flows.training.plan, "fitted_model", lambda _: ("a fit", fitted))
    after = plan_phase(TrainParameters(phase="first"), session)
    assert after.spec == before.spec
    assert after.tasks == before.tasks
    assert after.task_seconds == tuple((2 * seconds).tolist())


def test_more_programs_than_workers_keep_are_named_with_the_way_out() -> None:
    kept = MAX_COMPILED_PROGRAMS
    assert crowding_remark(3 * kept, num_workers=3) is None
    assert crowding_remark(1, num_workers=0) is None  # all of them restarting
    remark = crowding_remark(3 * kept + 1, num_workers=2)
    assert remark is not None
    assert f"{3 * kept + 1} task configurations are {3 * kept // 2 + 1} for each of 2 workers" in remark
    assert "at least 4 workers" in remark
