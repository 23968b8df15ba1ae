"""Step 3: fit the model that predicts how long a configuration takes and whether it runs.

It is fitted to all timings of the machine that was timed last, on top of the model of the shipped timings, which
predicts what has not been timed here. The result is registered in MLflow under the hardware's name.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from prefect import flow

from flows.artifacts import ArtifactSpec, fingerprint_of
from flows.errors import StepIncompleteError
from flows.parameters import FitParameters
from flows.prefect_artifacts import publish_image, publish_markdown, publish_table
from flows.record import recall, remember
from flows.report_data import collect, runtime_model_report
from flows.reporting import accepted_tasks_png, runtime_model_families_png, runtime_model_png
from flows.run_times.accepted_tasks import accepted_tasks
from flows.run_times.fit_table import family_errors
from flows.run_times.models import ALIAS, RECORD, read_model, reference_model, registered_name, save_model
from flows.run_times.stored import newest_machine, of_machine, read_timings
from flows.session import Session, current_session
from runtime_model.calibration import CalibrationReport
from runtime_model.estimators import COMPARED, ESTIMATORS
from runtime_model.fitting import fit
from runtime_model.prediction import RuntimeModel
from runtime_model.timing import StepTiming
from storage.checkpoints import CheckpointInfo

VERSION = 3


def run_fit(parameters: FitParameters, session: Session) -> tuple[str, CalibrationReport]:
    """Fits the model to this machine's timings, unless that was done. Returns its fingerprint and errors.

    Raises:
      StepIncompleteError: If nothing has been timed.
    """
    timings = _timings(session)
    kept = _kept(parameters, timings, session)
    if kept is not None:
        return kept
    base_fingerprint, base = reference_model(session)
    digest = fingerprint_of([timing.canonical_json() for timing in timings])
    config = {"seed": parameters.fit_seed, "compare": parameters.compare, "timings": digest}
    spec = ArtifactSpec("fit", VERSION, config, (base_fingerprint,))
    done = session.artifacts.read(spec)
    if done is None or read_model(session, spec.fingerprint) is None:  # a damaged model is replaced
        model, report = fit(
            timings,
            seed=parameters.fit_seed,
            base=base,
            estimators=COMPARED if parameters.compare else ESTIMATORS,
            on_progress=lambda name: session.reporter.line(f"fitting: {name}"),
        )
        saved = save_model(session, spec.fingerprint, model)
        reasons = Counter(timing.reason.split(":")[0] for timing in timings if not timing.valid)
        done = {
            "report": report.model_dump(mode="json"),
            "reasons": reasons.most_common(),
            "num_timings": len(timings),
            "accepted": [one.model_dump(mode="json") for one in accepted_tasks(model)],
            "machine": None if model.info.machine is None else model.info.machine.model_dump(mode="json"),
        }
        done["version"] = _register(model, saved, done, session)
        session.artifacts.write(spec, done)
    else:
        session.reporter.line("fitted before, to the same timings")
        session.registry.set_alias(registered_name(newest_machine(timings)), ALIAS, done["version"])
    remember(session.workspace, RECORD, {"fingerprint": spec.fingerprint, **done})
    return spec.fingerprint, CalibrationReport.model_validate(done["report"])


@flow(name="fit")
def fit_runtime_model(parameters: FitParameters = FitParameters()) -> dict[str, Any]:
    """Fits the run-time and validity model to this machine's timings, and measures its held-out error."""
    with current_session() as session:
        session.reporter.heading("fit")
        fingerprint, report = run_fit(parameters, session)
        session.reporter.line(report.summary())
        table, rows = family_errors(report)
        session.reporter.show(table)
        publish_markdown("runtime-model", report.summary(), "Held-out error of the run-time model.")
        publish_table("runtime-model-families", rows, "Held-out error of the run-time model, per family.")
        plot = runtime_model_png(collect(session.workspace))
        publish_image("runtime-model-plot", plot, "Predicted against measured seconds.")
        return {"fingerprint": fingerprint, "median_relative_error": report.median_relative_error}


def _timings(session: Session) -> list[StepTiming]:
    stored = read_timings(session)
    timings = of_machine(stored, newest_machine(stored))
    if not timings:
        raise StepIncompleteError("nothing has been timed here. Run `keirin time` first.")
    if len(timings) < len(stored):
        session.reporter.line(
            f"{len(stored) - len(timings)} timings are of other hardware or versions and left out"
        )
    return timings


def _kept(
    parameters: FitParameters, timings: list[StepTiming], session: Session
) -> tuple[str, CalibrationReport] | None:
    """Returns the last fit if too few timings have come in since to replace it."""
    record = recall(session.workspace, RECORD)
    if record is None or read_model(session, str(record["fingerprint"])) is None:
        return None
    new = len(timings) - int(record.get("num_timings", 0))
    machine = newest_machine(timings)
    is_same = record.get("machine") == (None if machine is None else machine.model_dump(mode="json"))
    if not is_same or new <= 0 or new >= parameters.min_growth * int(record.get("num_timings", 0)):
        return None
    session.reporter.line(f"{new} timings since the last fit are too few to fit again; `keirin fit` does")
    return str(record["fingerprint"]), CalibrationReport.model_validate(record["report"])


def _register(model: RuntimeModel, saved: CheckpointInfo, done: dict[str, Any], session: Session) -> int:
    """Records the fit as a run with its plots, and registers the model under its hardware. Returns the version."""
    report = CalibrationReport.model_validate(done["report"])
    name = registered_name(model.info.machine)
    run = session.tracker.start_run(
        "fit", tags={"keirin.step": "fit"}, params={"num_timings": report.num_timings, "hardware": name}
    )
    run.log_metrics(_metrics(report), 0)
    data = collect(session.workspace).model_copy(update={"runtime_model": runtime_model_report(done)})
    plots = {
        "runtime_model.png": runtime_model_png(data),
        "families.png": runtime_model_families_png(data),
        "accepted.png": accepted_tasks_png(data),
    }
    with tempfile.TemporaryDirectory() as folder:
        for file, picture in plots.items():
            path = Path(folder) / file
            path.write_bytes(picture)
            run.log_artifact(path, "plots")
    run.log_text(report.model_dump_json(), "calibration.json")
    version = session.registry.register(name, saved, run.run_id, {"step": "fit"})
    session.registry.set_alias(name, ALIAS, version)
    run.set_tags({"keirin.version": str(version)})
    run.end()
    session.reporter.line(f"registered as models:/{name}@{ALIAS}: version {version}", whole=True)
    return version


def _metrics(report: CalibrationReport) -> dict[str, float]:
    parts = {"": report, **{f"{family}.": report.for_family(family) for family in report.families}}
    names = ("median_relative_error", "p90_relative_error", "spearman", "interval_coverage", "validity_auc")
    values = {f"{prefix}{name}": getattr(part, name) for prefix, part in parts.items() for name in names}
    return {name: float(value) for name, value in values.items() if value is not None}
