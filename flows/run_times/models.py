"""Which run-time model is in use: that of the workers' hardware, or the last one fitted, or that of the timings
that keirin ships. In MLflow the alias `current` of each hardware's model says which; moved there, it counts
here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from flows.artifacts import ArtifactSpec, fingerprint_of
from flows.record import recall
from flows.session import Session
from flows.workers.units import machine_unit
from runtime_model.fitting import fit
from runtime_model.machine import Machine, this_machine
from runtime_model.prediction import FORMAT_VERSION, RuntimeModel
from runtime_model.reference import reference_timings
from storage.checkpoints import CheckpointInfo, CheckpointStore, load_checkpoint
from storage.errors import AliasNotFoundError

VERSION = 1
RECORD = "runtime_model"
ALIAS = "current"
FIX = "`keirin time --family all --count 20`, then `keirin fit`"


def save_model(session: Session, fingerprint: str, model: RuntimeModel) -> CheckpointInfo:
    """Stores a model under its fingerprint; what lay there before is replaced."""
    arrays, info = model.to_arrays()
    facts = {"info": info, "fingerprint": fingerprint}
    return _store(session, fingerprint).save("model", 0, {"model": arrays}, facts)


def read_model(session: Session, fingerprint: str) -> RuntimeModel | None:
    """Returns the stored model, or None where there is none, or it is damaged or of an older format."""
    store = _store(session, fingerprint)
    if store.latest_good("model") is None:
        return None
    checkpoint = load_checkpoint(store.info("model", 0))
    if checkpoint.metadata["info"].get("format_version") != FORMAT_VERSION:
        return None
    # Stored as a dictionary, whose keys a checkpoint writes as `['key']`.
    arrays = {key[2:-2]: array for key, array in checkpoint.trees["model"].items()}
    return RuntimeModel.from_arrays(arrays, checkpoint.metadata["info"])


def reference_model(session: Session) -> tuple[str, RuntimeModel]:
    """Returns the fingerprint and the model of the shipped timings, fitted once per workspace."""
    timings = reference_timings()
    digest = fingerprint_of([timing.canonical_json() for timing in timings])
    fingerprint = ArtifactSpec("reference-model", VERSION, {"timings": digest}).fingerprint
    model = read_model(session, fingerprint)
    if model is None:
        session.reporter.line(f"fitting a run-time model to the {len(timings)} timings that keirin ships")
        model, report = fit(timings, seed=0)
        save_model(session, fingerprint, model)
        session.reporter.line(report.summary())
    return fingerprint, model


def load_runtime_model(session: Session) -> tuple[str, RuntimeModel]:
    """Returns the fingerprint and the model of the workers' hardware, or of the last fit, or else the shipped one.

    Warns if it is of other hardware or versions.
    """
    if (fitted := fitted_model(session)) is not None:
        warn_if_stale(session, fitted[1])
        return fitted
    fingerprint, model = reference_model(session)
    machine = "" if model.info.machine is None else f" ({model.info.machine.hardware})"
    session.reporter.line(
        f"[yellow]no timings of this machine: run times are those of the machine that keirin's own timings "
        f"are of{machine}. To correct them: {FIX}[/yellow]"
    )
    return fingerprint, model


def fitted_model(session: Session) -> tuple[str, RuntimeModel] | None:
    """Returns fingerprint and model of the workers' hardware, or of the last fit; None: nothing was fitted."""
    for fingerprint in _fitted(session):
        if (model := read_model(session, fingerprint)) is not None:
            return fingerprint, model
    return None


def _fitted(session: Session) -> Iterator[str]:
    """Yields the fingerprints of the fits that may serve, the best first."""
    record = recall(session.workspace, RECORD)
    if record is None:
        return
    name = registered_name(workers_machine(session))
    with contextlib.suppress(AliasNotFoundError):
        folder = session.registry.resolve(f"models:/{name}@{ALIAS}")
        yield str(load_checkpoint(folder).metadata.get("fingerprint", ""))
    yield str(record["fingerprint"])


def warn_if_stale(session: Session, model: RuntimeModel) -> None:
    """Says what has changed since the model's timings were taken, and the command that brings it up to date."""
    if model.info.machine is None:
        return
    differences = workers_machine(session).differences(model.info.machine)
    if differences:
        session.reporter.line(
            f"[yellow]the run-time model is stale: {'; '.join(differences)}. Time again: {FIX}[/yellow]"
        )


def workers_machine(session: Session) -> Machine:
    """Returns what the workers run on: a local worker is set up as this process is."""
    if session.settings.scheduler is None:
        return this_machine()
    (machine,) = session.pool.run_all(machine_unit, [()])
    return Machine.model_validate(machine)


def registered_name(machine: Machine | None) -> str:
    """Returns the name under which a machine's models are registered."""
    hardware = "unknown" if machine is None else machine.hardware
    return "runtime-" + re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-")


def _store(session: Session, fingerprint: str) -> CheckpointStore:
    return CheckpointStore(session.workspace.runtime_model / fingerprint)
