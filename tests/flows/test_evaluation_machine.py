"""What an evaluation was measured on: asked of its workers, kept with it, and told by the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import pytest
from rich.console import Console

from flows.evaluation.clock import measured_on
from flows.evaluation.settings import VERSION
from flows.progress import Reporter
from flows.report_data import collect
from flows.reporting import ComparisonTable, EvaluationReport, OptimizerInfo
from flows.session import Session
from flows.settings import RuntimeSettings
from flows.workers.facts import curve_labels, host_facts, workers_facts
from storage.workspace import Workspace

ELSEWHERE = {
    "processor": "Example CPU",
    "num_cores": 16,
    "memory_gib": 128.0,
    "system": "Linux 6.1",
    "python": "3.12.1",
    "accelerator": "gpu Example H200",
    "versions": [["jax", "0.99.0"], ["mlflow", "3.17.2"], ["optax", "0.2.99"]],
}


class OneWorker:
    """A pool whose only worker is another machine."""

    def run_all(self, fn: Any, payloads: list[Any]) -> list[Any]:
        assert (fn.__name__, payloads) == ("facts_unit", [()])
        return [ELSEWHERE]

    def close(self) -> None:
        pass


def open_session(home: Path, scheduler: str | None) -> Session:
    settings = RuntimeSettings(home=home, scheduler=scheduler)
    return Session(settings, Reporter(Console(quiet=True)), open_pool=lambda _: OneWorker())


def report() -> EvaluationReport:
    tables = (
        ComparisonTable(title="By the clock", note="Fastest of six.", rows=()),
        ComparisonTable(title="One training per task", note="In steps.", rows=()),
    )
    candidate = OptimizerInfo(name="candidate", label="pacer", role="candidate")
    return EvaluationReport(
        set_name="x",
        horizon=10,
        num_seeds=1,
        max_speedup=5.0,
        optimizers=(candidate,),
        tasks=(),
        tables=tables,
    )


def remember(workspace: Workspace, **more: Any) -> None:
    workspace.write_state(
        {"evaluation": {"version": VERSION, "report": report().model_dump(mode="json"), **more}}
    )


def test_the_report_tells_the_machine_and_the_day_of_the_evaluation(tmp_path: Path) -> None:
    session = open_session(tmp_path, "tcp://127.0.0.1:1")
    measured = measured_on(session)
    assert measured["time"].endswith("+00:00")
    remember(session.workspace, measured={**measured, "time": "2026-11-28T10:00:00+00:00"})
    data = collect(session.workspace)
    assert data.evaluation is not None
    assert data.evaluation.tables[0].note == (
        "Fastest of six. Measured on 2026-11-28 on gpu Example H200, Example CPU, with jax 0.99.0, optax 0.2.99."
    )
    assert data.evaluation.tables[1].note == "In steps."
    assert (data.machine.accelerator, data.machine.processor) == ("gpu Example H200", "Example CPU")
    assert (data.machine.num_cores, dict(data.machine.versions)["jax"]) == (16, "0.99.0")


def test_of_an_earlier_evaluation_it_is_unknown(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).ensure()
    remember(workspace)
    data = collect(workspace)
    assert data.evaluation is not None
    assert "on an unknown machine" in data.evaluation.tables[0].note
    assert data.machine.accelerator == "accelerator unknown"
    assert "hardware that is unknown" in data.machine.processor


def test_without_an_evaluation_the_page_does_not_ask_for_an_accelerator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "devices", lambda *_: pytest.fail("it would take an accelerator's memory"))
    data = collect(Workspace(tmp_path).ensure())
    assert data.evaluation is None
    assert data.machine.processor == host_facts()["processor"]
    assert data.machine.accelerator == "accelerator unknown"


def test_local_workers_are_as_this_process_is(tmp_path: Path) -> None:
    facts = workers_facts(open_session(tmp_path, None))
    assert facts == {**host_facts(), "accelerator": None}
    assert curve_labels(facts) | {"optax": ""} == {"jax": jax.__version__, "optax": "", "platform": "cpu"}
    assert curve_labels(ELSEWHERE) == {"jax": "0.99.0", "optax": "0.2.99", "platform": "gpu"}
