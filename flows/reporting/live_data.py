"""What the live page of a running phase shows, as data that is stored beside it and read back by a resumed run."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from flows.reporting.series import Series

RunState = Literal["running", "paused", "complete", "stopped", "failed"]
TASK_POINTS = 60


class LiveTask(BaseModel):
    """One static configuration."""

    label: str
    family: str
    curve: Series = Field(default_factory=lambda: Series(capacity=TASK_POINTS))


class LiveEvent(BaseModel):
    """Something that happened once."""

    outer_step: int
    when: datetime
    what: str


class Recent(BaseModel):
    """Sums over the latest outer steps."""

    outer_steps: int = 0
    staleness: dict[int, int] = {}
    max_staleness: int | None = None
    """Older units are dropped; None where there is no such limit."""
    num_units: int = 0
    num_stale: int = 0
    num_not_finite: int = 0
    compile_seconds: float = 0.0
    run_seconds: float = 0.0


class LiveReport(BaseModel):
    """A phase at one moment."""

    run_name: str
    phase: str
    summary: str
    mode: str
    outer_step: int
    outer_steps: int
    state: RunState
    note: str = ""
    """Why it is in that state, if there is more to say."""
    seconds: float = 0.0
    """Spent in all, earlier parts of the run included."""
    seconds_left: float | None = None
    inner_steps: float = 0.0
    written: datetime
    refresh_seconds: int = 5
    mlflow_run: str = ""
    curves: dict[str, Series] = {}
    """Of the whole phase, by name."""
    families: dict[str, Series] = {}
    tasks: dict[str, LiveTask] = {}
    """By number and label, so that another task in the same place is another curve."""
    recent: Recent = Recent()
    events: list[LiveEvent] = []

    def curve(self, name: str) -> Series:
        """Returns a curve, empty if there is none."""
        return self.curves.get(name) or Series()
