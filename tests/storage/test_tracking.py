"""One contract for both trackers; then what only MLflow has."""

from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path

import pytest

from storage.errors import StorageError
from storage.mlflow_client import migrate_tracking_database, tracking_client
from storage.tracking import InMemoryTracker, MlflowTracker, Tracker
from storage.workspace import Workspace


@pytest.fixture(params=["memory", "mlflow"])
def tracker(request: pytest.FixtureRequest) -> Tracker:
    if request.param == "memory":
        return InMemoryTracker()
    return MlflowTracker(request.getfixturevalue("tracked_workspace"))


def test_a_run_is_recorded_and_resumed(tracker: Tracker, tmp_path: Path) -> None:
    figure = tmp_path / "curve.png"
    figure.write_bytes(b"png")
    run = tracker.start_run("train", tags={"phase": "short"}, params={"sigma": 0.03, "config": {"a": 1}})
    nested = tracker.start_run("evaluate", parent=run)
    run.log_metrics({"meta_loss": 0.5, "worst": math.inf, "undefined": math.nan}, 1)
    run.log_metrics({}, 2)
    run.log_artifact(figure, "figures")
    run.log_text("hello", "notes/a.txt")
    run.set_tags({"outer_step": "1"})
    nested.end()
    run.end("KILLED")
    again = tracker.resume_run(run.run_id)
    again.log_metrics({"meta_loss": 0.4}, 2)
    again.end()
    assert again.run_id == run.run_id != nested.run_id


def test_an_unknown_run_cannot_be_resumed(tracker: Tracker) -> None:
    with pytest.raises(StorageError, match="no run 'nope'"):
        tracker.resume_run("nope")


def test_the_one_in_memory_remembers_everything(tmp_path: Path) -> None:
    tracker = InMemoryTracker()
    run = tracker.start_run("train", params={"sigma": 0.03})
    child = tracker.start_run("evaluate", parent=run.run_id)
    run.log_metrics({"meta_loss": 0.5}, 3)
    (tmp_path / "a.txt").write_text("A")
    run.log_artifact(tmp_path / "a.txt", "tables")
    run.end("FAILED")
    assert child.tags["mlflow.parentRunId"] == run.run_id
    assert run.metrics == [(3, {"meta_loss": 0.5})]
    assert run.artifacts == {"tables/a.txt": b"A"}
    assert run.status == "FAILED"


class TestMlflow:
    def test_mlflow_shows_what_was_recorded(self, tracked_workspace: Workspace, tmp_path: Path) -> None:
        tracker = MlflowTracker(tracked_workspace)
        run = tracker.start_run("train", tags={"phase": "short"}, params={f"p{i}": i for i in range(150)})
        child = tracker.start_run("evaluate", parent=run)
        run.set_tags({"config": json.dumps({"long": "x" * 9_000})})
        for step in (1, 2):
            run.log_metrics({"meta_loss": 1.0 / step, "speed": 2.0}, step)
        run.log_text("hello", "notes/a.txt")
        run.end("FAILED")
        client = tracking_client(tracked_workspace)
        stored = client.get_run(run.run_id)
        assert stored.info.status == "FAILED"
        assert stored.info.run_name == "train"
        assert stored.data.params["p149"] == "149"
        assert stored.data.tags["config"].endswith("…")
        assert [(m.step, m.value) for m in client.get_metric_history(run.run_id, "meta_loss")] == [
            (1, 1.0),
            (2, 0.5),
        ]
        assert stored.info.artifact_uri.startswith(tracked_workspace.mlflow_artifacts.as_uri())
        assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == run.run_id
        assert (
            Path(client.download_artifacts(run.run_id, "notes/a.txt", str(tmp_path))).read_text() == "hello"
        )

    def test_a_missing_artifact_is_named(self, tracked_workspace: Workspace, tmp_path: Path) -> None:
        run = MlflowTracker(tracked_workspace).start_run("train")
        with pytest.raises(StorageError, match=r"nothing\.png"):
            run.log_artifact(tmp_path / "nothing.png")

    def test_migrating_again_changes_nothing(self, tracked_workspace: Workspace) -> None:
        before = tracked_workspace.mlflow_database.stat().st_mtime_ns
        migrate_tracking_database(tracked_workspace)
        assert tracked_workspace.mlflow_database.stat().st_mtime_ns == before
        assert not list(tracked_workspace.root.glob("mlflow.db.*"))

    def test_another_file_in_the_databases_place(self, tmp_path: Path) -> None:
        workspace = Workspace(tmp_path)
        workspace.mlflow_database.write_text("notes")
        with pytest.raises(StorageError, match="not an MLflow database"):
            migrate_tracking_database(workspace)
        assert workspace.mlflow_database.read_text() == "notes"

    def test_a_killed_migration_leaves_no_database(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import mlflow.store.db.utils as migrations

        def killed(_: object) -> None:
            raise sqlite3.OperationalError("killed")

        monkeypatch.setattr(migrations, "_initialize_tables", killed)
        with pytest.raises(sqlite3.OperationalError):
            migrate_tracking_database(Workspace(tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == ["mlflow.lock"]
