"""Percentile tracks on disk: a small file per training run and evaluation settings.

    .keirin/tracks/RUN-SETTINGS.json

A point is added by one read and one write under a lock: two that follow the same run with the same settings
share the file, and neither loses the other's points.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.evaluation.settings import VERSION
from flows.reporting import TrackPoint, TrackReport
from storage.errors import StorageError, explain_os_errors
from storage.files import check_name, locked, read_json, write_json
from storage.workspace import Workspace


class TrackFile:
    """The track of one run.

    Args:
      workspace: Where it is.
      empty: The track without points.
      settings: Fingerprint of tasks and settings: tracks of other settings are other files.
    """

    def __init__(self, workspace: Workspace, empty: TrackReport, settings: str) -> None:
        self.name = check_name(f"{empty.run}-{settings[:8]}", "track")
        self._path = _folder(workspace) / f"{self.name}.json"
        self._empty = empty

    @property
    def report(self) -> TrackReport:
        """Everything so far, by outer step."""
        return TrackReport.model_validate(self._read().get("report", self._empty))

    @property
    def run_id(self) -> str | None:
        """MLflow's run of the track; None before the first point."""
        found = self._read().get("run_id")
        return None if found is None else str(found)

    def steps(self) -> set[int]:
        """Returns the outer steps that have a point."""
        return {point.outer_step for point in self.report.points}

    def add(self, point: TrackPoint, *, run_id: str) -> TrackReport:
        """Adds a point, or replaces that of the same outer step. Returns everything so far."""
        with (
            explain_os_errors(self._path, "record a point of a track"),
            locked(self._path.with_suffix(".lock")),
        ):
            points = {known.outer_step: known for known in self.report.points} | {point.outer_step: point}
            ordered = tuple(points[step] for step in sorted(points))
            report = self._empty.model_copy(update={"points": ordered})
            document = {"run_id": run_id, "version": VERSION, "report": report.model_dump(mode="json")}
            write_json(self._path, document)
        return report

    def _read(self) -> dict[str, Any]:
        found = read_json(self._path)
        return found if isinstance(found, dict) else {}


def read_tracks(workspace: Workspace) -> tuple[TrackReport, ...]:
    """Returns every track of a workspace, the one changed last at the end.

    Those made with another definition of the numbers (`flows.evaluation.settings.VERSION`) are left out.

    Raises:
      StorageError: If a file is none.
    """
    files = sorted(_folder(workspace).glob("*.json"), key=lambda path: (path.stat().st_mtime, path.name))
    documents = [document for path in files if isinstance(document := read_json(path), dict)]
    try:
        return tuple(
            TrackReport.model_validate(document["report"])
            for document in documents
            if document.get("version") == VERSION
        )
    except (KeyError, ValueError) as error:
        raise StorageError(f"a track in `{_folder(workspace)}` is not one: {error}. Remove it.") from error


def _folder(workspace: Workspace) -> Path:
    return workspace.root / "tracks"
