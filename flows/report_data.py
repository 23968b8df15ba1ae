"""Gathers what a report shows from the workspace: the record of the current run and the stores it points at."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from flows.evaluation.settings import VERSION
from flows.following.tracks import read_tracks
from flows.reporting import (
    AcceptedTasks,
    EvaluationReport,
    FamilyErrors,
    Location,
    MachineReport,
    PhaseReport,
    PromotionReport,
    ReportData,
    RuntimeModelReport,
    StageReport,
    TimingPoint,
)
from flows.selection import selection_remark
from flows.workers.facts import host_facts
from runtime_model.calibration import CalibrationReport
from storage.workspace import Workspace

CLOCK_TABLE = "By the clock"
UNKNOWN = "unknown"


def collect(
    workspace: Workspace,
    *,
    title: str = "keirin run",
    command: str = "",
    evaluation: dict[str, Any] | None = None,
) -> ReportData:
    """Returns the data of a report; parts that have not been run are empty.

    Args:
      workspace: Of what.
      title: Of the report.
      command: That makes it.
      evaluation: Record of the one to show; None: the last that was remembered, which may be somebody else's.
    """
    record = workspace.read_state()
    if evaluation is not None:
        record = {**record, "evaluation": evaluation}
    shown = _evaluation(record.get("evaluation"), workspace)
    promotion = record.get("promotion")
    model = record.get("runtime_model")
    return ReportData(
        title=title,
        command=command,
        created=datetime.now(UTC),
        machine=machine_report(None if shown is None else record["evaluation"]),
        stages=tuple(StageReport(name=n, seconds=s) for n, s in record.get("stages", {}).items()),
        phases=tuple(
            PhaseReport.model_validate(phase["report"])
            for phase in sorted(record.get("phases", {}).values(), key=lambda phase: phase["version"])
        ),
        runtime_model=None if model is None else runtime_model_report(model),
        evaluation=shown,
        tracks=read_tracks(workspace),
        promotion=None if promotion is None else PromotionReport.model_validate(promotion["report"]),
        locations=locations(workspace),
    )


def _evaluation(record: dict[str, Any] | None, workspace: Workspace) -> EvaluationReport | None:
    """Returns the last evaluation; one in another form, or with its numbers defined otherwise, counts as none."""
    if record is None or record.get("version") != VERSION:
        return None
    try:
        report = EvaluationReport.model_validate(record["report"])
        measured = _measured(record)
    except ValidationError:
        return None
    tables = tuple(
        table.model_copy(update={"note": f"{table.note} {measured}"}) if table.title == CLOCK_TABLE else table
        for table in report.tables
    )
    # Asked now: what was promoted since may have been decided on these very tasks.
    selected = selection_remark(workspace, record.get("lineage", ()), [task.name for task in report.tasks])
    remarks = (*report.remarks, *(() if selected is None else (selected,)))
    return report.model_copy(update={"tables": tables, "remarks": remarks})


def _measured(record: dict[str, Any]) -> str:
    """Returns when and on what an evaluation was measured, as a sentence."""
    machine = _machine(record)
    if machine is None:
        return "Measured on an unknown machine: an earlier version did not record it."
    day = str(record["measured"]["time"])[:10]
    versions = ", ".join(" ".join(pair) for pair in machine.versions if pair[0] in ("jax", "optax"))
    device = f"{machine.accelerator}, {machine.processor}" if machine.accelerator else machine.processor
    return f"Measured on {day} on {device}, with {versions}."


def _machine(record: dict[str, Any]) -> MachineReport | None:
    """Returns what the workers of an evaluation ran on; None where an earlier version did not record it."""
    measured = record.get("measured")
    if measured is None:
        return None
    return MachineReport.model_validate({**measured["machine"], "when": measured["time"]})


def locations(workspace: Workspace) -> tuple[Location, ...]:
    """Returns the three lines that say where everything is."""
    home = _relative(workspace)
    return (
        Location(what="report", where=f"{home}/reports/report.html", command="keirin report --open"),
        Location(what="phases, checkpoints, aliases", where=home, command="keirin status"),
        Location(what="runs and metrics", where=f"{home}/mlflow.db", command="keirin up"),
    )


def machine_report(evaluation: dict[str, Any] | None) -> MachineReport:
    """Describes what the evaluation was measured on.

    Without an evaluation it is this machine. Where one did not record it, this machine is named as what it is: that
    of the page. Its accelerator is not asked for: that would take memory of it.
    """
    here = MachineReport.model_validate({**host_facts(), "accelerator": f"accelerator {UNKNOWN}"})
    if evaluation is None:
        return here
    processor = f"evaluated on hardware that is {UNKNOWN}, this page made on {here.processor}"
    return _machine(evaluation) or here.model_copy(update={"processor": processor})


def runtime_model_report(record: dict[str, Any]) -> RuntimeModelReport:
    """Returns what a report shows of a fit."""
    report = CalibrationReport.model_validate(record["report"])
    points = tuple(
        TimingPoint(
            family=point.family,
            measured_seconds=point.measured_seconds,
            predicted_seconds=point.predicted_seconds,
            low_seconds=point.low_seconds,
            high_seconds=point.high_seconds,
        )
        for point in report.points
        if point.valid and point.measured_seconds is not None
    )
    return RuntimeModelReport(
        num_timings=report.num_timings,
        num_valid=report.num_valid,
        points=points,
        median_relative_error=report.median_relative_error,
        p90_relative_error=report.p90_relative_error,
        interval_coverage=report.interval_coverage,
        spearman=report.spearman,
        validity_accuracy=report.validity_accuracy,
        validity_auc=report.validity_auc,
        validation=f"{report.num_folds}-fold cross-validation",
        invalid_reasons=tuple((reason, count) for reason, count in record["reasons"]),
        families=tuple(family_errors(report, family) for family in report.families),
        accepted=tuple(AcceptedTasks.model_validate(one) for one in record.get("accepted", ())),
    )


def family_errors(report: CalibrationReport, family: str) -> FamilyErrors:
    """Returns one family's part of a fit's errors."""
    part = report.for_family(family)
    return FamilyErrors(
        family=family,
        num_timings=part.num_timings,
        num_timed=part.num_timed,
        median_relative_error=part.median_relative_error,
        p90_relative_error=part.p90_relative_error,
        spearman=part.spearman,
        interval_coverage=part.interval_coverage,
        validity_auc=part.validity_auc,
        predicted_by=report.chosen(family),
        by_estimator=tuple(part.median_by_estimator.items()),
    )


def _relative(workspace: Workspace) -> str:
    path = os.path.relpath(workspace.root)
    return str(workspace.root) if path.startswith("..") else path
