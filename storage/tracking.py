"""Recording runs: in the workspace's MLflow database, or in memory for tests and dry runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.errors import StorageError
from storage.mlflow_client import migrate_tracking_database
from storage.mlflow_tracking import MlflowRun, MlflowTracker
from storage.tracking_protocol import MetricPoint, Run, RunStatus, Tracker, run_tags

__all__ = [
    "InMemoryRun",
    "InMemoryTracker",
    "MetricPoint",
    "MlflowRun",
    "MlflowTracker",
    "Run",
    "RunStatus",
    "Tracker",
    "migrate_tracking_database",
]


@dataclass
class InMemoryRun:
    """A run that is only remembered; every attribute may be looked at."""

    run_id: str
    name: str
    tags: dict[str, str]
    params: dict[str, Any]
    metrics: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    status: str = "RUNNING"

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.metrics.append((int(step), {name: float(value) for name, value in metrics.items()}))

    def log_points(self, points: Sequence[MetricPoint]) -> None:
        for point in points:
            self.log_metrics({point.name: point.value}, point.step)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        self.artifacts[f"{folder}/{Path(path).name}".lstrip("/")] = Path(path).read_bytes()

    def log_text(self, text: str, name: str) -> None:
        self.artifacts[name] = text.encode()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags.update(tags)

    def end(self, status: RunStatus = "FINISHED") -> None:
        self.status = status


class InMemoryTracker:
    """A tracker for tests and dry runs: `runs` has everything, by run id."""

    def __init__(self) -> None:
        self.runs: dict[str, InMemoryRun] = {}

    def start_run(
        self,
        name: str,
        *,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        parent: Run | str | None = None,
    ) -> InMemoryRun:
        run = InMemoryRun(f"run-{len(self.runs)}", name, run_tags(tags, parent), dict(params or {}))
        self.runs[run.run_id] = run
        return run

    def resume_run(self, run_id: str) -> InMemoryRun:
        if run_id not in self.runs:
            raise StorageError(f"there is no run {run_id!r}. Start a new one.")
        self.runs[run_id].status = "RUNNING"
        return self.runs[run_id]
