"""Recording runs in the workspace's MLflow database."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from storage.errors import StorageError, explain_os_errors
from storage.files import check_path
from storage.mlflow_client import (
    EXPERIMENT,
    explain_mlflow_errors,
    import_mlflow,
    migrate_tracking_database,
    tracking_client,
)
from storage.mlflow_points import write_points
from storage.tracking_protocol import MetricPoint, Run, RunStatus, run_tags
from storage.workspace import Workspace

_MAX_VALUE = 5_000  # characters; MLflow refuses longer tags
_MAX_BATCH = {"metrics": 1_000, "params": 100, "tags": 100}  # entries of one `log_batch`


class MlflowRun:
    """A run in the tracking database."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self._run_id = run_id

    @property
    def run_id(self) -> str:
        return self._run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        entities = import_mlflow().entities
        now = int(time.time() * 1000)
        self._log(metrics=[entities.Metric(k, float(v), now, int(step)) for k, v in metrics.items()])

    def log_points(self, points: Sequence[MetricPoint]) -> None:
        database = Path(self._client.tracking_uri.removeprefix("sqlite:///"))
        if write_points(database, self._run_id, points):
            return
        metric = import_mlflow().entities.Metric
        self._log(metrics=[metric(p.name, p.value, p.milliseconds, p.step) for p in points])

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Records the run's parameters; long ones are cut (put whole configurations into a text)."""
        entities = import_mlflow().entities
        self._log(params=[entities.Param(name, _cut(value)) for name, value in params.items()])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        entities = import_mlflow().entities
        self._log(tags=[entities.RunTag(name, _cut(value)) for name, value in tags.items()])

    def _log(self, **entries: list[Any]) -> None:
        with self._explained(f"record {' and '.join(entries)}"):
            for kind, values in entries.items():
                for start in range(0, len(values), _MAX_BATCH[kind]):
                    self._client.log_batch(self._run_id, **{kind: values[start : start + _MAX_BATCH[kind]]})

    def _explained(self, doing: str) -> AbstractContextManager[None]:
        return explain_mlflow_errors(self._client.tracking_uri.removeprefix("sqlite:///"), doing)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        source = check_path(path, "an artifact")
        with explain_os_errors(source, f"store `{source.name}` in the run"):
            self._client.log_artifact(self._run_id, str(source), folder or None)

    def log_text(self, text: str, name: str) -> None:
        with self._explained(f"store {name!r} in the run"):
            self._client.log_text(self._run_id, text, name)

    def end(self, status: RunStatus = "FINISHED") -> None:
        with self._explained("end the run's record"):
            self._client.set_terminated(self._run_id, status)


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 1]}…"


class MlflowTracker:
    """Records runs in the workspace's database; see `storage.tracking.Tracker`."""

    def __init__(self, workspace: Workspace) -> None:
        """Opens the database, creating it first if need be (seconds)."""
        migrate_tracking_database(workspace)
        self.workspace = workspace
        self._client = tracking_client(workspace)
        self._experiment_id = self._client.get_experiment_by_name(EXPERIMENT).experiment_id

    def start_run(
        self,
        name: str,
        *,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        parent: Run | str | None = None,
    ) -> MlflowRun:
        """Starts a run, nested under `parent` (a run or its id) if given."""
        all_tags = {key: _cut(value) for key, value in run_tags(tags, parent).items()}
        with explain_mlflow_errors(str(self.workspace.mlflow_database), "start the run's record"):
            started = self._client.create_run(self._experiment_id, run_name=name, tags=all_tags)
        run = MlflowRun(self._client, started.info.run_id)
        run.log_params(params or {})
        return run

    def resume_run(self, run_id: str) -> MlflowRun:
        """Continues a run that was started before.

        Raises:
          StorageError: If there is no such run.
        """
        mlflow = import_mlflow()
        try:
            self._client.update_run(run_id, status="RUNNING")
        except mlflow.exceptions.MlflowException as error:
            database = self.workspace.mlflow_database
            raise StorageError(f"there is no run {run_id!r} in `{database}`. Start a new one.") from error
        return MlflowRun(self._client, run_id)
