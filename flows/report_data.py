"""Gathers what a report shows from the workspace: the record of the current run and the stores it points at."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

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
from flows.settings import available_cores
from runtime_model.calibration import CalibrationReport
from storage.workspace import Workspace

PACKAGES = ("keirin", "jax", "optax", "prefect", "distributed", "mlflow")


def collect(workspace: Workspace, *, title: str = "keirin run", command: str = "") -> ReportData:
    """Returns the data of a report; parts that have not been run are empty."""
    record = workspace.read_state()
    evaluation, promotion = record.get("evaluation"), record.get("promotion")
    model = record.get("runtime_model")
    return ReportData(
        title=title,
        command=command,
        created=datetime.now(UTC),
        machine=machine_report(),
        stages=tuple(StageReport(name=n, seconds=s) for n, s in record.get("stages", {}).items()),
        phases=tuple(
            PhaseReport.model_validate(phase["report"])
            for phase in sorted(record.get("phases", {}).values(), key=lambda phase: phase["version"])
        ),
        runtime_model=None if model is None else runtime_model_report(model),
        evaluation=_evaluation(evaluation),
        tracks=read_tracks(workspace),
        promotion=None if promotion is None else PromotionReport.model_validate(promotion["report"]),
        locations=locations(workspace),
    )


def _evaluation(record: dict[str, Any] | None) -> EvaluationReport | None:
    """Returns the last evaluation; one recorded in another form, by an earlier version, counts as none."""
    if record is None:
        return None
    try:
        return EvaluationReport.model_validate(record["report"])
    except ValidationError:
        return None


def locations(workspace: Workspace) -> tuple[Location, ...]:
    """Returns the three lines that say where everything is."""
    home = _relative(workspace)
    return (
        Location(what="report", where=f"{home}/reports/report.html", command="keirin report --open"),
        Location(what="phases, checkpoints, aliases", where=home, command="keirin status"),
        Location(what="runs and metrics", where=f"{home}/mlflow.db", command="keirin up"),
    )


def machine_report() -> MachineReport:
    """Describes this machine."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return MachineReport(
        processor=_processor(),
        num_cores=available_cores(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=tuple(versions),
    )


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


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _relative(workspace: Workspace) -> str:
    path = os.path.relpath(workspace.root)
    return str(workspace.root) if path.startswith("..") else path
