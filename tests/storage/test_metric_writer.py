"""Many values at once: the same rows as MLflow writes, gathered by a writer that loses and hides nothing."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Sequence

import pytest

from storage.errors import ReadOnlyStorageError, StorageError
from storage.metric_writer import FLUSH_SECONDS, MAX_WAITING, MetricWriter
from storage.mlflow_client import import_mlflow, query, tracking_client
from storage.mlflow_points import write_points
from storage.tracking import InMemoryRun, InMemoryTracker, MetricPoint, MlflowTracker
from storage.workspace import Workspace

POINTS = [
    MetricPoint("loss", 2.0, 3, 1_000),
    MetricPoint("loss", 1.0, 4, 1_001),
    MetricPoint("loss", 1.5, 4, 1_001),
    MetricPoint("loss", 0.5, 2, 1_002),  # of a run that did the step again
    MetricPoint("loss", 0.5, 2, 1_002),
    MetricPoint("tasks/000", math.nan, 1, 1_000),
    MetricPoint("norm", math.inf, 1, 1_000),
    MetricPoint("norm", -math.inf, 2, 1_000),
]


def rows(workspace: Workspace, run_id: str) -> list[list[tuple[object, ...]]]:
    columns = "key, value, timestamp, step, is_nan"
    return [
        sorted(query(workspace.mlflow_database, f"SELECT {columns} FROM {table} WHERE run_uuid = ?", run_id))
        for table in ("metrics", "latest_metrics")
    ]


def test_rows_are_those_that_mlflow_writes(tracked_workspace: Workspace) -> None:
    tracker, client = MlflowTracker(tracked_workspace), tracking_client(tracked_workspace)
    metric = import_mlflow().entities.Metric
    ours, theirs = tracker.start_run("ours"), tracker.start_run("theirs")
    for part in (POINTS[:3], POINTS[3:]):
        ours.log_points(part)
        client.log_batch(
            theirs.run_id, metrics=[metric(p.name, p.value, p.milliseconds, p.step) for p in part]
        )
    assert rows(tracked_workspace, ours.run_id) == rows(tracked_workspace, theirs.run_id)
    assert client.get_run(ours.run_id).data.metrics["loss"] == 1.5
    assert math.isnan(client.get_run(ours.run_id).data.metrics["tasks/000"])
    assert [m.step for m in client.get_metric_history(ours.run_id, "loss")] == [3, 4, 4, 2]


def test_another_schema_is_left_to_mlflow(
    tracked_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.mlflow_points._COLUMNS", ("key", "value"))
    run = MlflowTracker(tracked_workspace).start_run("other")
    assert not write_points(tracked_workspace.mlflow_database, run.run_id, POINTS)
    run.log_points(POINTS[:1])
    assert rows(tracked_workspace, run.run_id)[0] == [("loss", 2.0, 1_000, 3, 0)]


def test_a_run_that_is_not_there_and_a_disk_that_takes_nothing_are_named(
    tracked_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tracked_workspace.mlflow_database
    with pytest.raises(StorageError, match=r"cannot record metrics in .* FOREIGN KEY"):
        write_points(database, "nope", POINTS)
    assert rows(tracked_workspace, "nope") == [[], []]
    run = MlflowTracker(tracked_workspace).start_run("read-only")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **_: connect(f"file:{path}?mode=ro", uri=True))
    with pytest.raises(ReadOnlyStorageError):
        write_points(database, run.run_id, POINTS)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowRun(InMemoryRun):
    """Writes when it is let."""

    def __init__(self) -> None:
        super().__init__("run-0", "slow", {}, {})
        self.may_write, self.writes = threading.Event(), 0

    def log_points(self, points: Sequence[MetricPoint]) -> None:
        self.may_write.wait(10)
        self.writes += 1
        super().log_points(points)


def test_values_are_written_every_few_seconds_and_at_the_end() -> None:
    run, clock = InMemoryTracker().start_run("train"), Clock()
    writer = MetricWriter(run, clock=clock)
    writer.add({"a": 1.0, "b": 2.0}, 1)
    assert run.metrics == []
    writer.flush()
    assert run.metrics == [(1, {"a": 1.0}), (1, {"b": 2.0})]
    clock.now = FLUSH_SECONDS / 2
    writer.add({"a": 3.0}, 2)
    clock.now = 2 * FLUSH_SECONDS
    writer.add({"a": 4.0}, 3)
    writer.close()
    assert [step for step, _ in run.metrics] == [1, 1, 2, 3]
    writer.close()  # nothing is left


def test_who_measures_does_not_wait_for_a_slow_disk_until_too_much_waits() -> None:
    run, clock = SlowRun(), Clock()
    writer = MetricWriter(run, clock=clock)
    for step in range(10):
        clock.now += FLUSH_SECONDS
        writer.add({"a": float(step)}, step)
    assert run.writes == 0
    writer.add({f"m{i}": 0.0 for i in range(MAX_WAITING - 100)}, 10)  # still not waiting
    run.may_write.set()
    writer.close()
    assert run.writes == 2
    assert [step for step, metrics in run.metrics if "a" in metrics] == list(range(10))


def test_what_goes_wrong_in_the_thread_is_raised_where_values_come_from() -> None:
    class Broken(InMemoryRun):
        def log_points(self, points: Sequence[MetricPoint]) -> None:
            raise StorageError("no space")

    clock = Clock()
    writer = MetricWriter(Broken("run-0", "broken", {}, {}), clock=clock)
    clock.now = FLUSH_SECONDS
    writer.add({"a": 1.0}, 1)
    with pytest.raises(StorageError, match="no space"):
        writer.flush()
    writer.add({"a": 1.0}, 2)
    with pytest.raises(StorageError, match="no space"):
        writer.close()
