"""The live page on disk: beside it what it shows, so that a run that goes on has its curves.

    .keirin/reports/live/RUN.html, RUN.json

Both are replaced whole, at most every few seconds. That a page cannot be written is said once: it ends no run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from flows.reporting.live_data import LiveReport
from flows.reporting.live_page import render_live
from storage.files import replace_file
from storage.workspace import Workspace

WRITE_SECONDS = 3.0


def live_page(workspace: Workspace, run_name: str) -> Path:
    """Returns where a run's page is."""
    return workspace.live_pages / f"{run_name}.html"


class LivePage:
    """Writes a report now and then.

    Args:
      path: Of the page.
      complain: Told once if it cannot be written.
      clock: Seconds, from any origin.
    """

    def __init__(
        self, path: Path, complain: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path, self._complain, self._clock = path, complain, clock
        self._due, self._failed = clock(), False

    @property
    def is_due(self) -> bool:
        """Whether the page is old enough to be written again."""
        return self._clock() >= self._due

    def write(self, report: LiveReport) -> None:
        """Writes page and data now."""
        self._due = self._clock() + WRITE_SECONDS
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path.with_suffix(".json"), report.model_dump_json().encode())
            replace_file(self.path, render_live(report).encode())
        except OSError as error:
            if not self._failed:
                self._complain(f"[yellow]the live page cannot be written: {error}[/yellow]")
            self._failed = True

    def read(self) -> LiveReport | None:
        """Returns what an earlier part of the run stored; None if there is nothing that can be read."""
        try:
            return LiveReport.model_validate_json(self.path.with_suffix(".json").read_bytes())
        except (OSError, ValueError):
            return None
