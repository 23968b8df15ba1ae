"""A run-time model's predictions reach whoever orders the work, in both modes; nothing is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

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
from storage.tracking import InMemoryTracker

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


def test_more_programs_than_workers_keep_are_named_with_the_way_out() -> None:
    kept = MAX_COMPILED_PROGRAMS
    assert crowding_remark(3 * kept, num_workers=3) is None
    assert crowding_remark(1, num_workers=0) is None  # all of them restarting
    remark = crowding_remark(3 * kept + 1, num_workers=2)
    assert remark is not None
    assert f"{3 * kept + 1} task configurations are {3 * kept // 2 + 1} for each of 2 workers" in remark
    assert "at least 4 workers" in remark
