"""Which artifacts belong to the current run: the pipeline's small record, for reports and `keirin status`.

Each change is one read and one write under a lock: an evaluation that follows a training run shares the record
with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from storage.errors import explain_os_errors
from storage.files import locked
from storage.workspace import Workspace


def remember(workspace: Workspace, part: str, value: Any) -> None:
    """Replaces one part of the record."""
    change(workspace, part, lambda _: value)


def remember_phase(workspace: Workspace, name: str, value: dict[str, Any]) -> None:
    """Replaces what is known of one phase."""
    change(workspace, "phases", lambda phases: {**(phases or {}), name: value})


def change(workspace: Workspace, part: str, made_of: Callable[[Any], Any]) -> Any:
    """Replaces one part of the record by what is made of it, as one step. Returns what it is then.

    Args:
      workspace: Whose.
      part: Which.
      made_of: The part, or None where there is none yet → what it is to be. Called while the record is locked.
    """
    file = workspace.state_file
    with explain_os_errors(file, "write the pipeline's state"), locked(file.with_suffix(".lock")):
        state = workspace.read_state()
        value = made_of(state.get(part))
        workspace.write_state({**state, part: value})
    return value


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
        seconds = time.monotonic() - start

        def add(stages: dict[str, float] | None) -> dict[str, float]:
            return {**(stages or {}), name: (stages or {}).get(name, 0.0) + seconds}

        change(workspace, "stages", add)
