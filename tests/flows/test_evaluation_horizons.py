"""Evaluations at several horizons: which belong together, and that two at once are both kept."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from made_up_evaluations import made_up_evaluation

import flows.evaluation.horizons
from flows.evaluation.horizons import with_horizons
from flows.optimizer_reference import OptimizerReference
from flows.record import recall
from flows.reporting import EvaluationReport, OptimizerInfo
from storage.workspace import Workspace
from task_generator.evaluation_set import EvaluationTask, get_evaluation_set

TASKS = get_evaluation_set("heldout_demo")[:2]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path).ensure()


def optimizer(fingerprint: str = "abc") -> OptimizerReference:
    theta = {"w": np.zeros(2, np.float32)}
    return OptimizerReference("x", None, "{}", theta, 0, theta, fingerprint)


def done(horizon: int) -> dict[str, Any]:
    report = EvaluationReport(
        set_name="x",
        horizon=horizon,
        num_seeds=2,
        max_speedup=5.0,
        optimizers=(OptimizerInfo(name="candidate", label="pacer", role="candidate"),),
        tasks=(),
    )
    summary = made_up_evaluation([[2.0, 2.0]] * 2, horizon=horizon)
    return {"report": report.model_dump(mode="json"), "summary": summary.model_dump(mode="json"), "more": 1}


def horizons(found: dict[str, Any]) -> list[int]:
    return [each["horizon"] for each in found["report"]["horizons"]]


def test_rows_of_the_same_tasks_are_together_whatever_they_are_called(workspace: Workspace) -> None:
    renamed = [EvaluationTask(name=f"other {task.name}", config=task.config) for task in reversed(TASKS)]
    assert horizons(with_horizons(done(200), TASKS, optimizer(), workspace)) == [200]
    found = with_horizons(done(20), renamed, optimizer(), workspace)
    assert horizons(found) == [20, 200]
    assert found["more"] == 1
    assert horizons(with_horizons(done(40), TASKS[:1], optimizer(), workspace)) == [40]
    assert horizons(with_horizons(done(40), TASKS, optimizer("def"), workspace)) == [40]


def test_rows_on_other_data_are_apart(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with_horizons(done(200), TASKS, optimizer(), workspace)
    monkeypatch.setattr(flows.evaluation.horizons, "data_versions", lambda _: {"mnist": "0123"})
    assert horizons(with_horizons(done(20), TASKS, optimizer(), workspace)) == [20]


def test_rows_of_another_definition_are_apart(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with_horizons(done(200), TASKS, optimizer(), workspace)
    monkeypatch.setattr(flows.evaluation.horizons, "VERSION", -1)
    assert horizons(with_horizons(done(20), TASKS, optimizer(), workspace)) == [20]


def test_of_two_evaluations_at_once_both_are_kept(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has read what there is to read before the other has written."""
    together = Barrier(2, timeout=60)
    row = flows.evaluation.horizons.candidate_row

    def candidate_row(*arguments: Any) -> Any:
        together.wait()
        return row(*arguments)

    monkeypatch.setattr(flows.evaluation.horizons, "candidate_row", candidate_row)
    evaluate: Callable[[int], Any] = lambda horizon: with_horizons(
        done(horizon), TASKS, optimizer(), workspace
    )
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(evaluate, (20, 200)))
    (rows,) = recall(workspace, "horizons").values()
    assert set(rows) == {"20", "200"}
