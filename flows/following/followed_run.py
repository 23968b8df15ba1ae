"""Which training run is meant by a name, whether it is over, and holding one of its checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flows.session import Session
from flows.training.control_records import running
from lopt.registry import UnknownNameError, unknown_name_message
from storage.checkpoints import CheckpointInfo, CheckpointStore, process_owner

OWNER = "follow"


def find_run(name: str, session: Session) -> str:
    """Returns the run called that, or whose name starts so; an empty name is the only one that is running.

    Raises:
      UnknownNameError: If there is none, or more than one; says which there are, and the nearest.
    """
    runs = running(session.workspace)
    known = sorted({*session.checkpoints.phases(), *runs})
    if not known:
        raise UnknownNameError(
            "no phase has been trained here: there is nothing to follow. Run `keirin train`."
        )
    if not name:
        if len(runs) == 1:
            return runs[0]
        many = "more than one run is running" if runs else "no run is running"
        raise UnknownNameError(f"{many}: name the one to follow. Known: {', '.join(map(repr, known))}.")
    found = [run for run in known if run == name] or [run for run in known if run.startswith(name)]
    if len(found) != 1:
        many = f" {name!r} could be any of {', '.join(found)}." if found else ""
        raise UnknownNameError(unknown_name_message("training run", name, known) + many)
    return found[0]


def is_complete(run: str, session: Session) -> bool:
    """Whether a run has done all its outer steps and is registered: its artifact is there."""
    fingerprint = run.rpartition("-")[2]
    return any(session.artifacts.folder.glob(f"phase-{fingerprint}*.json"))


def is_running(run: str, session: Session) -> bool:
    """Whether a process is training it now, as far as its control record tells."""
    return run in running(session.workspace)


@contextlib.contextmanager
def held(info: CheckpointInfo, store: CheckpointStore, settings: str) -> Iterator[None]:
    """Keeps a checkpoint from being pruned while the context is open; a process that is killed in it keeps nothing.

    Args:
      info: Which one.
      store: Whose.
      settings: Fingerprint of what it is evaluated on, and how: two that follow one run have a pin each.
    """
    owner = process_owner(f"{OWNER}-{settings[:8]}")
    store.pin(info, owner)
    try:
        yield
    finally:
        store.unpin(info, owner)
