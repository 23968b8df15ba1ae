"""The same weights on the same tasks at several horizons: a row for each, kept in the workspace's record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curriculum.evaluation.comparison import Row
from curriculum.evaluation.summary import EvaluationSummary
from flows.artifacts import fingerprint_of
from flows.evaluation.settings import VERSION
from flows.evaluation.tables import candidate_row
from flows.evaluation.versions import CURVES_VERSION, data_versions
from flows.optimizer_reference import OptimizerReference
from flows.record import change
from flows.reporting import EvaluationReport, HorizonRow
from lopt.config import derive
from storage.workspace import Workspace
from task_generator.evaluation_set import EvaluationTask

RECORD = "horizons"


def with_horizons(
    done: dict[str, Any], tasks: Sequence[EvaluationTask], optimizer: OptimizerReference, workspace: Workspace
) -> dict[str, Any]:
    """Returns an evaluation with those of the same weights on the same tasks at other horizons beside it.

    Its own row is added in one step, so that of two evaluations that end together neither loses the other's.

    Args:
      done: The evaluation: its `report` and its `summary`, as JSON.
      tasks: What it is on, by whatever names.
      optimizer: Whose it is.
      workspace: Where rows are kept.
    """
    report = EvaluationReport.model_validate(done["report"])
    summary = EvaluationSummary.model_validate(done["summary"])
    group = _group(tasks, optimizer, summary)
    row = candidate_row(summary, report.candidate.label).model_dump(mode="json")

    def add(known: dict[str, dict[str, Any]] | None) -> dict[str, dict[str, Any]]:
        known = known or {}
        return {**known, group: {**known.get(group, {}), str(summary.config.horizon): row}}

    rows: dict[str, Any] = change(workspace, RECORD, add)[group]
    horizons = tuple(
        HorizonRow(horizon=int(horizon), row=Row.model_validate(each))
        for horizon, each in sorted(rows.items(), key=lambda item: int(item[0]))
    )
    return {**done, "report": report.model_copy(update={"horizons": horizons}).model_dump(mode="json")}


def _group(tasks: Sequence[EvaluationTask], optimizer: OptimizerReference, summary: EvaluationSummary) -> str:
    """Returns what the rows of one table share: weights, tasks, data, and settings other than the horizon."""
    return fingerprint_of(
        [
            optimizer.fingerprint,
            sorted(task.config.fingerprint() for task in tasks),
            data_versions(task.config for task in tasks),
            CURVES_VERSION,
            VERSION,
            derive(summary.config, horizon=2, baselines=()).model_dump(mode="json"),
        ]
    )
