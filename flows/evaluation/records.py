"""Evaluations as promotion finds them: by the optimizer, and by what it was evaluated on.

    .keirin/evaluations/OPTIMIZER/SETTINGS.json

Both names are fingerprints. Two optimizers may be compared if they have an evaluation with the same second one:
the same tasks, settings and seeds. A record is a file of its own, so evaluations that run at the same time lose
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from curriculum.evaluation.summary import EvaluationSummary
from flows.artifacts import ArtifactSpec
from storage.errors import explain_os_errors
from storage.files import read_json, write_json
from storage.workspace import Workspace

_OF_THE_OPTIMIZER = ("trained_on", "initialisation", "clock")
"""Parts of an evaluation's identity in which two that may be compared can differ."""


@dataclass(frozen=True)
class EvaluationRecord:
    """One evaluation of one optimizer.

    Attributes:
      optimizer: Fingerprint of architecture and weights.
      settings: Fingerprint of the tasks and the settings: equal for evaluations that may be compared.
      fingerprint: Of the evaluation, that of its artifact.
      created: When it was recorded (ISO 8601, UTC).
      asked_for: Whether somebody asked for it, rather than a follower of a training run making it in passing.
      summary: What was found.
    """

    optimizer: str
    settings: str
    fingerprint: str
    created: str
    asked_for: bool
    summary: EvaluationSummary


def settings_fingerprint(spec: ArtifactSpec) -> str:
    """Returns the fingerprint of what an evaluation is on, and how: nothing that belongs to the optimizer."""
    shared = {name: value for name, value in spec.config.items() if name not in _OF_THE_OPTIMIZER}
    return replace(spec, config=shared, dependencies=()).fingerprint


def record_evaluation(
    workspace: Workspace,
    optimizer: str,
    spec: ArtifactSpec,
    summary: dict[str, Any],
    *,
    asked_for: bool = True,
) -> EvaluationRecord:
    """Keeps an evaluation; recorded again, it is the optimizer's latest.

    Args:
      workspace: Where.
      optimizer: Fingerprint of architecture and weights.
      spec: Identity of the evaluation.
      summary: JSON of the `EvaluationSummary`.
      asked_for: As in `EvaluationRecord`.
    """
    settings = settings_fingerprint(spec)
    path = _folder(workspace, optimizer) / f"{settings}.json"
    value = {
        "optimizer": optimizer,
        "settings": settings,
        "fingerprint": spec.fingerprint,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "asked_for": asked_for,
        "summary": summary,
    }
    with explain_os_errors(path, "record an evaluation"):
        write_json(path, value)
    return _parsed(value)


def find_evaluation(
    workspace: Workspace, optimizer: str, *, settings: str | None = None
) -> EvaluationRecord | None:
    """Returns an optimizer's evaluation with these settings, or its latest; None if there is none.

    One recorded in another form, by an earlier version, counts as none: its numbers meant something else.

    Args:
      workspace: Where to look.
      optimizer: Fingerprint of architecture and weights.
      settings: As in `EvaluationRecord`; None takes the latest evaluation that was asked for, else the latest.
    """
    folder = _folder(workspace, optimizer)
    names = folder.glob("*.json") if settings is None else [folder / f"{settings}.json"]
    values = [value for path in names if isinstance(value := read_json(path), dict)]
    found = [record for value in values if (record := _readable(value)) is not None]
    return max(found, key=lambda record: (record.asked_for, record.created), default=None)


def _readable(value: dict[str, Any]) -> EvaluationRecord | None:
    try:
        return _parsed(value)
    except ValidationError:
        return None


def _parsed(value: dict[str, Any]) -> EvaluationRecord:
    return EvaluationRecord(**{**value, "summary": EvaluationSummary.model_validate(value["summary"])})


def _folder(workspace: Workspace, optimizer: str) -> Path:
    return workspace.root / "evaluations" / optimizer
