"""What recording a run takes: the protocol that every tracker follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
_PARENT_TAG = "mlflow.parentRunId"


class MetricPoint(NamedTuple):
    """One value of one metric."""

    name: str
    value: float
    step: int
    milliseconds: int
    """Since 1970."""


class Run(Protocol):
    """One run being recorded."""

    @property
    def run_id(self) -> str:
        """What `Tracker.resume_run` takes."""
        ...

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Records scalars at an outer step, in one write. NaN and infinities are accepted."""
        ...

    def log_points(self, points: Sequence[MetricPoint]) -> None:
        """Records many scalars, of many steps, in as few writes as possible. May be called from any thread."""
        ...

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copies a file (a figure, a table) into the run, under `folder`."""
        ...

    def log_text(self, text: str, name: str) -> None:
        """Stores `text` as the run's file `name`."""
        ...

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Adds or replaces tags."""
        ...

    def end(self, status: RunStatus = "FINISHED") -> None:
        """Marks the run as over."""
        ...


class Tracker(Protocol):
    """Where runs are recorded."""

    def start_run(
        self,
        name: str,
        *,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        parent: Run | str | None = None,
    ) -> Run:
        """Starts a run, nested under `parent` (a run or its id) if given."""
        ...

    def resume_run(self, run_id: str) -> Run:
        """Continues a run that was started before, perhaps by another process.

        Raises:
          StorageError: If there is no such run.
        """
        ...


def run_tags(tags: Mapping[str, str] | None, parent: Run | str | None) -> dict[str, str]:
    """Returns `tags` and, for a nested run, the tag that names its parent."""
    parent_id = parent if isinstance(parent, str) or parent is None else parent.run_id
    return {**(tags or {}), **({_PARENT_TAG: parent_id} if parent_id else {})}
