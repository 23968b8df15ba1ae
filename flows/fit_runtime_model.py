"""Step 3: fit the model that predicts how long a configuration takes and whether it runs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from prefect import flow

from flows.artifacts import ArtifactSpec, fingerprint_of
from flows.errors import StepIncompleteError
from flows.parameters import FitParameters, SampleParameters
from flows.prefect_artifacts import publish_image, publish_markdown
from flows.record import recall, remember
from flows.report_data import collect
from flows.reporting import runtime_model_png
from flows.sample_tasks import draw, sample_spec
from flows.session import Session, current_session
from flows.time_tasks import stored_timings
from runtime_model.calibration import CalibrationReport
from runtime_model.fitting import fit
from runtime_model.prediction import RuntimeModel
from runtime_model.timing import StepTiming
from storage.checkpoints import CheckpointStore, load_checkpoint

VERSION = 1


def run_fit(parameters: FitParameters, session: Session) -> tuple[str, CalibrationReport]:
    """Fits the model to the timings of a sample, unless that was done. Returns its fingerprint and errors.

    Raises:
      StepIncompleteError: If configurations of the sample have not been timed.
    """
    timings = _timings(parameters, session)
    digest = fingerprint_of([timing.canonical_json() for timing in timings])
    spec = ArtifactSpec(
        "fit",
        VERSION,
        {"seed": parameters.fit_seed, "timings": digest},
        (sample_spec(parameters).fingerprint,),
    )
    done = session.artifacts.read(spec)
    store = _store(session, spec.fingerprint)
    if done is None or store.latest_good("model") is None:  # a damaged model is replaced
        model, report = fit(timings, seed=parameters.fit_seed)
        arrays, info = model.to_arrays()
        store.save("model", 0, {"model": arrays}, {"info": info})
        reasons = Counter(timing.reason.split(":")[0] for timing in timings if not timing.valid)
        done = {"report": report.model_dump(mode="json"), "reasons": reasons.most_common()}
        session.artifacts.write(spec, done)
    else:
        session.reporter.line("fitted before, to the same timings")
    remember(session.workspace, "runtime_model", {"fingerprint": spec.fingerprint, **done})
    return spec.fingerprint, CalibrationReport.model_validate(done["report"])


def load_runtime_model(session: Session) -> tuple[str, RuntimeModel]:
    """Returns the fingerprint and the model of the last fit.

    Raises:
      StepIncompleteError: If nothing has been fitted.
    """
    record = recall(session.workspace, "runtime_model")
    if record is None:
        raise StepIncompleteError("no run-time model has been fitted. Run `keirin time`, then `keirin fit`.")
    fingerprint = str(record["fingerprint"])
    checkpoint = load_checkpoint(_store(session, fingerprint).info("model", 0))
    # Stored as a dictionary, whose keys a checkpoint writes as `['key']`.
    arrays = {key[2:-2]: array for key, array in checkpoint.trees["model"].items()}
    return fingerprint, RuntimeModel.from_arrays(arrays, checkpoint.metadata["info"])


@flow(name="fit", flow_run_name="{parameters.distribution}-{parameters.count}")
def fit_runtime_model(parameters: FitParameters = FitParameters()) -> dict[str, Any]:
    """Fits the run-time and validity model to the timings of a sample, and measures its held-out error."""
    with current_session() as session:
        session.reporter.heading("fit")
        fingerprint, report = run_fit(parameters, session)
        session.reporter.line(report.summary())
        publish_markdown("runtime-model", report.summary(), "Held-out error of the run-time model.")
        plot = runtime_model_png(collect(session.workspace))
        publish_image("runtime-model-plot", plot, "Predicted against measured seconds.")
        return {"fingerprint": fingerprint, "median_relative_error": report.median_relative_error}


def _timings(parameters: SampleParameters, session: Session) -> list[StepTiming]:
    configs = draw(parameters)
    known = stored_timings(session, configs)
    missing = sum(config.fingerprint() not in known for config in configs)
    if missing:
        raise StepIncompleteError(
            f"{missing} of {len(configs)} configurations have not been timed. "
            f"Run `keirin time --distribution {parameters.distribution} --count {parameters.count} "
            f"--seed {parameters.seed}` first."
        )
    return [known[config.fingerprint()] for config in configs]


def _store(session: Session, fingerprint: str) -> CheckpointStore:
    return CheckpointStore(session.workspace.runtime_model / fingerprint)
