"""Control records on disk: one small file per running phase, written by `keirin control`, read by the run.

    .keirin/control/RUN.json     {"phase": …, "control": …}

The run puts its phase there when it starts, so that a wish can be checked against it before it is written.
"""

from __future__ import annotations

from curriculum.control import Control, controlled
from curriculum.phase import Phase
from lopt.registry import UnknownNameError, unknown_name_message
from storage.errors import StorageError
from storage.files import read_json, write_json
from storage.workspace import Workspace


class ControlFile:
    """The record of one run, as its run sees it.

    Args:
      workspace: Where it is.
      run_name: Of the run: the folder of its checkpoints.
    """

    def __init__(self, workspace: Workspace, run_name: str) -> None:
        self._path = workspace.control / f"{run_name}.json"
        self._last = Control()

    def open(self, phase: Phase) -> None:
        """Puts the phase there, with no wish: what was asked of an earlier part of the run is over."""
        write_json(self._path, {"phase": phase.model_dump(mode="json"), "control": {}})

    def read(self) -> Control:
        """Returns the latest wish; the last good one where the file is unreadable or gone."""
        try:
            record = read_json(self._path)
            self._last = Control.model_validate((record or {}).get("control", {}))
        except (StorageError, ValueError, OSError):
            return self._last
        return self._last

    def close(self) -> None:
        """Takes the record away: the run is over."""
        self._path.unlink(missing_ok=True)


def running(workspace: Workspace) -> list[str]:
    """Returns the names of the runs that can be controlled."""
    return sorted(path.stem for path in workspace.control.glob("*.json"))


def change_control(workspace: Workspace, run: str, wish: Control) -> tuple[str, Control]:
    """Adds a wish to a run's record: what it leaves at None stays as it was. Returns the run and its record.

    Args:
      workspace: Where the run is.
      run: Its name, or the start of it; empty for the only one.
      wish: Numbers to change, and a command.

    Raises:
      UnknownNameError: If no run, or more than one, is called that.
      ValueError: If a number does not go with the run's phase.
    """
    names = running(workspace)
    found = [name for name in names if name == run] or [name for name in names if name.startswith(run)]
    if not names:
        raise UnknownNameError(
            "no phase is running here: there is nothing to control. Start one: `keirin train`."
        )
    if len(found) != 1:
        many = f" {run!r} could be any of {', '.join(found)}." if found else ""
        raise UnknownNameError(unknown_name_message("running phase", run, names) + many)
    path = workspace.control / f"{found[0]}.json"
    record = read_json(path) or {}
    before = Control.model_validate(record.get("control", {}))
    after = Control.model_validate({**before.changes, **wish.changes, "command": wish.command})
    controlled(Phase.model_validate(record["phase"]), after)
    write_json(path, {**record, "control": after.model_dump(mode="json")})
    return found[0], after
