"""Step 4: meta-train one phase, and promote its best theta to the place that the next phase starts from.

What is promoted is the averaged theta with the lowest validation loss, the starting theta included: a phase
that only makes things worse promotes what it started from.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.parameters import TrainParameters
from flows.prefect_artifacts import ProgressArtifact, publish_image, publish_markdown, publish_table
from flows.record import remember_phase
from flows.report_data import collect
from flows.reporting import PhaseReport, meta_training_png
from flows.session import Session, current_session
from flows.training.plan import PhasePlan, plan_phase
from flows.training.progress import PhaseProgress
from flows.training.runner import run_phase
from storage.model_registry import CANDIDATE
from storage.registry_reading import DEFAULT_MODEL
from storage.tracking import Run


def run_training(parameters: TrainParameters, session: Session) -> PhaseReport:
    """Runs a phase unless it is complete. Returns its report."""
    plan = plan_phase(parameters, session)
    done = session.artifacts.read(plan.spec)
    session.reporter.line(f"{plan.phase.name}: {plan.phase.summary}")
    if done is not None and not session.registry.is_good(DEFAULT_MODEL, done["version"]):
        session.reporter.line(f"[yellow]version {done['version']} is damaged: it is made again[/yellow]")
        done = None
    if done is None:
        publish_table(
            "phase-tasks", [{"task": task.label} for task in plan.tasks], "What the phase trains on."
        )
        progress, run = run_phase(
            plan, session, on_percent=ProgressArtifact("phase-progress", "Outer steps of the phase.")
        )
        done = _finish(plan, progress, run, session)
    else:
        session.reporter.line("complete before")
    remember_phase(session.workspace, plan.phase.name, {"fingerprint": plan.spec.fingerprint, **done})
    return PhaseReport.model_validate(done["report"])


def _finish(plan: PhasePlan, progress: PhaseProgress, run: Run, session: Session) -> dict[str, Any]:
    """Registers the result, then marks the phase as complete; killed in between, this is done again."""
    assert progress.stored is not None  # the learner's last event asks for a checkpoint
    report = progress.history.report(plan.phase, started_from=plan.started_from, seconds=progress.seconds)
    session.checkpoints.pin(progress.stored)
    version = session.registry.register(
        DEFAULT_MODEL, progress.stored, run.run_id, {"run_name": plan.run_name, "step": "train"}
    )
    session.registry.set_alias(DEFAULT_MODEL, plan.phase.name, version)
    session.registry.set_alias(DEFAULT_MODEL, CANDIDATE, version)
    run.set_tags({"keirin.version": str(version)})
    run.end()
    result = {
        "name": plan.phase.name,
        "run_name": plan.run_name,
        "run_id": run.run_id,
        "version": version,
        "checkpoint": str(progress.stored.path),
        "report": report.model_dump(mode="json"),
    }
    session.artifacts.write(plan.spec, result)
    session.reporter.line(f"promoted as {plan.phase.name!r}: version {version}")
    return result


def publish(report: PhaseReport, session: Session) -> None:
    """Shows the curve and the validations on the flow run's page."""
    plot = meta_training_png(collect(session.workspace).model_copy(update={"phases": (report,)}))
    publish_image("meta-training-curve", plot, f"Meta-loss during {report.name}.")
    rows = [point.model_dump() for point in report.validation]
    publish_table("validations", rows, "The averaged theta on fixed tasks, beside the phase's start.")
    if report.validation:
        first, best = report.validation[0].meta_loss, min(point.meta_loss for point in report.validation)
        text = (
            f"**{report.name}**, started from {report.started_from}: {len(report.outer_step)} outer steps, "
            f"{report.inner_steps:,} inner steps in {report.seconds:.0f} s. "
            f"Validation loss {first:.4f} → {best:.4f}."
        )
        publish_markdown("phase-summary", text)


@flow(name="train", flow_run_name="{parameters.curriculum}-{parameters.phase}")
def meta_train_phase(parameters: TrainParameters = TrainParameters()) -> dict[str, Any]:
    """Meta-trains one phase of a curriculum: continues where an earlier run stopped, skips it if complete."""
    with current_session() as session:
        session.reporter.heading("train")
        report = run_training(parameters, session)
        publish(report, session)
        return {"phase": report.name, "outer_steps": len(report.outer_step), "seconds": report.seconds}
