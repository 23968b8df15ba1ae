"""Which artifacts belong to the current run: the pipeline's small record, for reports and `keirin status`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from storage.workspace import Workspace


def remember(workspace: Workspace, part: str, value: Any) -> None:
    """Replaces one part of the record."""
    workspace.write_state({**workspace.read_state(), part: value})


def remember_phase(workspace: Workspace, name: str, value: dict[str, Any]) -> None:
    """Replaces what is known of one phase."""
    phases = workspace.read_state().get("phases", {})
    remember(workspace, "phases", {**phases, name: value})


def recall(workspace: Workspace, part: str) -> Any:
    """Returns one part of the record, or None."""
    return workspace.read_state().get(part)


@contextmanager
def stage(workspace: Workspace, name: str) -> Iterator[None]:
    """Adds the time spent inside to what the stage took so far: a resumed run counts both parts."""
    start = time.monotonic()
    try:
        yield
    finally:
        seconds = workspace.read_state().get("stages", {})
        spent = seconds.get(name, 0.0) + time.monotonic() - start
        remember(workspace, "stages", {**seconds, name: spent})
