"""Which promotions chose an optimizer, from the record of promotions and the evaluations that they rest on."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import curriculum.selection
from curriculum.selection import Selection
from flows.optimizer_reference import resolve_optimizer
from flows.promotion.history import PromotionEvent, read_history
from flows.session import Session
from storage.errors import StorageError
from storage.files import read_json
from storage.mlflow_client import query
from storage.registry_reading import DEFAULT_MODEL
from storage.resolver import resolve_checkpoint
from storage.workspace import Workspace

_VERSION = re.compile(r" \(version (\d+)\)$")
"""How a checkpoint says where its phase started (`flows.training.plan`)."""


def lineage(ref: str, session: Session) -> tuple[str, ...]:
    """Returns the fingerprints of an optimizer and of those that its training started from, the youngest first.

    It ends at the initialisation, or where a checkpoint is not there any more.

    Args:
      ref: Alias, `models:/NAME/VERSION` or a checkpoint's folder.
      session: Whose registry to ask.
    """
    found: list[str] = []
    start: str | None = ref
    while start is not None:
        try:
            found.append(resolve_optimizer(start, session).fingerprint)
            start = _start(resolve_checkpoint(start, session.workspace).metadata)
        except StorageError:
            break
    return tuple(found)


def selection_remark(workspace: Workspace, lineage: Sequence[str], tasks: Sequence[str]) -> str | None:
    """Returns what has to be said in red where an optimizer is reported on `tasks`: that they chose it.

    Args:
      workspace: Whose record of promotions is asked.
      lineage: Of the optimizer: see `lineage`.
      tasks: Names of those that are reported.
    """
    events = [numbered.event for numbered in read_history(workspace)]
    selections = [
        Selection(event.version, event.gate, event.optimizer == lineage[0], _tasks(workspace, event))
        for event in events
        if event.kind == "promoted" and event.optimizer in lineage
    ]
    return curriculum.selection.selection_remark(tasks, selections)


def _start(metadata: Mapping[str, Any]) -> str | None:
    """Returns the version that a checkpoint's phase started from; None: the initialisation."""
    found = _VERSION.search(str(metadata.get("started_from", "")))
    return None if found is None else f"models:/{DEFAULT_MODEL}/{found[1]}"


def _tasks(workspace: Workspace, event: PromotionEvent) -> tuple[str, ...] | None:
    """Returns the tasks that a promotion was decided on; None if its evaluation is not kept any more.

    An evaluation that was made again, by the clock for one, is recorded in the first one's place: the evidence that
    was stored with the decision is still the first.
    """
    records = (workspace.root / "evaluations" / event.optimizer).glob("*.json")
    for path in (*records, *_evidence(workspace, event.run_id)):
        value = read_json(path)
        if isinstance(value, dict) and value.get("fingerprint") == event.evaluation:
            return tuple(str(task["task"]) for task in value["summary"]["tasks"])  # of any version
    return None


def _evidence(workspace: Workspace, run_id: str) -> tuple[Path, ...]:
    """Returns the candidate's evaluation in the run of a decision; nothing, if the database is gone."""
    try:
        rows = query(workspace.mlflow_database, "SELECT artifact_uri FROM runs WHERE run_uuid = ?", run_id)
    except sqlite3.Error:
        return ()
    return tuple(Path(url2pathname(urlsplit(str(uri)).path)) / "candidate_evaluation.json" for (uri,) in rows)
