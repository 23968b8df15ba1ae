"""Tasks that chose an optimizer: found in the record of promotions, and said in red where they are reported."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import pytest
from promotions import MODEL, events, promote, record, steady, three_versions, uri
from rich.console import Console

from flows.commands.status import show_status
from flows.evaluate import evaluate
from flows.optimizer_reference import initial_theta
from flows.parameters import EvaluateParameters
from flows.progress import Reporter
from flows.record import recall
from flows.report_data import collect
from flows.selection import lineage, selection_remark
from flows.session import Session, use_session
from flows.settings import RuntimeSettings
from lopt.architectures import ARCHITECTURES
from storage.workspace import Workspace
from task_generator.evaluation_set import EVALUATION_SETS, EvaluationTask
from task_generator.families import FAMILIES
from task_generator.task_config import TaskConfig

TASKS = ("task0", "task3", "another")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Prefect's client, when a flow fails
]


@pytest.fixture
def session(workspace: Workspace) -> Session:
    return three_versions(workspace)


def started_from(session: Session, version: int) -> str:
    """Registers a version whose training started from another. Returns its URI."""
    optimizer = ARCHITECTURES["pacer"]()
    theta = jax.tree.map(lambda leaf: leaf + 0.5, initial_theta(optimizer.canonical_json(), seed=0))
    start = f"first (version {version})"
    metadata = {"architecture": optimizer.model_dump(mode="json"), "seed": 0, "started_from": start}
    info = session.checkpoints.save("second", version, {"theta": theta}, metadata)
    return uri(session.registry.register(MODEL, info, session.tracker.start_run("second").run_id))


def said(session: Session, ref: str) -> str | None:
    return selection_remark(session.workspace, lineage(ref, session), TASKS)


def test_who_was_promoted_on_these_tasks_was_chosen_on_them(session: Session) -> None:
    assert said(session, uri(2)) is None
    assert promote(session, 2)
    assert not promote(session, 3)  # refused: it was not chosen
    remark = said(session, uri(2))
    assert remark is not None
    assert remark.startswith("2 of 3 tasks decided the promotion of version 2 (gate 'default')")
    assert remark.endswith("task0, task3.")
    assert (said(session, uri(1)), said(session, uri(3))) == (None, None)


def test_so_was_what_started_from_it(session: Session) -> None:
    """Version 4 started from 1; only 1 was promoted, and nobody promoted what 4 has become."""
    ref = started_from(session, 1)
    assert lineage(ref, session) == (*lineage(ref, session)[:1], *lineage(uri(1), session))
    assert said(session, ref) is None
    assert promote(session, 1)
    remark = said(session, ref)
    assert remark is not None
    assert "version 1 (gate 'default', where its training started)" in remark
    assert lineage(started_from(session, 99), session) == lineage(ref, session)[:1]  # which is not there


def test_the_evidence_of_a_decision_outlives_its_record(session: Session) -> None:
    assert promote(session, 1)
    before, whose = said(session, uri(1)), lineage(uri(1), session)
    folder = session.workspace.root / "evaluations" / events(session)[0].optimizer
    for path in folder.glob("*.json"):
        path.unlink()
    record(session, uri(1), steady(1.0), tasks="others")
    assert said(session, uri(1)) == before
    session.workspace.mlflow_database.unlink()
    assert "is not known" in str(selection_remark(session.workspace, whose, TASKS))


def test_remarks_are_printed_in_red(
    session: Session, pool: Any, prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that do not say what they were trained on, before and after a promotion on the same task."""
    sizes = {"hidden_size": 4, "num_layers": 1, "image_size": 4, "batch_size": 8, "dataset": "digits"}
    family = FAMILIES["mlp"].model_validate({**sizes, "activation": "relu", "initializer": "normal"})
    task = EvaluationTask(name="wide", config=TaskConfig(family=family))
    monkeypatch.setitem(EVALUATION_SETS, "heldout_demo", (task,))
    gate = tmp_path / "gate.json"
    gate.write_text('{"name": "any", "conditions": [{"condition": "champion_ratio", "min_ratio": 1e-9}]}')

    def printed() -> str:
        console = Console(record=True, width=500, file=io.StringIO())
        settings = RuntimeSettings(home=session.workspace.root)
        with use_session(Session(settings, Reporter(console), open_pool=lambda _: pool)):
            evaluate(
                EvaluateParameters(
                    optimizer=uri(1),
                    evaluation_sets=("heldout_demo",),
                    horizon=10,
                    num_seeds=1,
                    normalizer_factor=1,
                    clock=False,
                )
            )
        return console.export_text(styles=True)

    unknown = "\x1b[31mOf 1 of 1 tasks it is not known"
    decided = "\x1b[31m1 of 1 tasks decided the promotion of version 1"
    first = printed()
    assert unknown in first
    assert decided not in first
    assert promote(session, 1, gate=str(gate))
    second = printed()
    assert (second.count(unknown), second.count(decided)) == (1, 1)
    status = Console(record=True, width=500, file=io.StringIO())
    show_status(RuntimeSettings(home=session.workspace.root), status)
    assert status.export_text(styles=True).count(unknown) == 1
    measured = recall(session.workspace, "evaluation")["measured"]["time"]
    assert collect(session.workspace).machine.when == datetime.fromisoformat(measured)
    assert recall(session.workspace, "evaluation")["lineage"] == list(lineage(uri(1), session))
