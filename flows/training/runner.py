"""Running one phase: events in, checkpoints, metrics and progress out.

The learner is a generator that knows no disk. Here its states become checkpoints, each with the history so
far, so that a run that ends in any way goes on from the last one. A run that is told to stop (Ctrl-C, a
cancelled flow, an error) first stores the state it has.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from curriculum.control import ReadControl
from curriculum.events import CheckpointDue, LearnerEvent, OuterStepDone, Paused, Validated
from curriculum.learner import init_learner
from curriculum.meta_train import meta_train
from curriculum.meta_train_asynchronously import meta_train_asynchronously
from curriculum.phase import Phase
from curriculum.worker import MAX_COMPILED_PROGRAMS, init_states
from flows.errors import PhaseStoppedError
from flows.optimizer_reference import INITIAL_SEED, TRAINED_ON
from flows.session import Session
from flows.training.control_records import ControlFile
from flows.training.history import PhaseHistory
from flows.training.plan import PhasePlan
from flows.training.prefect_watch import watched
from flows.training.progress import PhaseProgress
from flows.training.telemetry import PhaseTelemetry
from lopt.types import PyTree
from storage.checkpoints import load_checkpoint
from storage.errors import StorageError
from storage.tracking import Run

PAUSE_SECONDS = 0.5


def restore_phase(plan: PhasePlan, session: Session) -> PhaseProgress:
    """Returns the run's newest good checkpoint, or its start. Damaged checkpoints are named and passed over."""
    fresh = init_learner(plan.phase, plan.theta, _estimator_states(plan))
    skipped = len(session.checkpoints.skipped)
    info = session.checkpoints.latest_good(plan.run_name)
    for damage in session.checkpoints.skipped[skipped:]:
        session.reporter.line(f"[yellow]{damage}[/yellow]")
    if info is None:
        return PhaseProgress(fresh)
    checkpoint = load_checkpoint(info, templates={"learner": fresh}, fingerprint=plan.spec.fingerprint)
    return PhaseProgress(
        state=checkpoint.trees["learner"],
        history=PhaseHistory.from_arrays(checkpoint.trees["history"]),
        seconds=float(checkpoint.metadata["seconds"]),
        run_id=checkpoint.metadata["run_id"],
        stored=info,
    )


def _estimator_states(plan: PhasePlan) -> tuple[PyTree, ...]:
    """Returns the trajectories of synchronous training; asynchronous workers keep theirs."""
    if plan.phase.mode == "asynchronous":
        return ()
    return init_states(plan.tasks, plan.phase.estimator, plan.optimizer, plan.theta)


def run_phase(
    plan: PhasePlan, session: Session, *, on_percent: Callable[[float], None] = lambda _: None
) -> tuple[PhaseProgress, Run]:
    """Runs the phase to its end, from where an earlier run stopped. Returns where it ended, and its record.

    Args:
      plan: What to run.
      session: With whom, and where to.
      on_percent: Called with the percentage of outer steps that are done.
    """
    progress = restore_phase(plan, session)
    run = _tracked_run(plan, progress, session)
    if remark := crowding_remark(len(plan.tasks), session.pool.num_workers):
        session.reporter.line(f"[yellow]{remark}[/yellow]")
    done = int(progress.state.outer_step)
    if done:
        session.reporter.line(f"continues from outer step {done} of {plan.phase.outer_steps}")
    telemetry = PhaseTelemetry(plan, progress, session, run)
    try:
        with session.reporter.task(plan.phase.name, plan.phase.outer_steps, done=done) as task:
            task.listen(on_percent)
            _follow(plan, progress, session, telemetry, task.advance)
        telemetry.close("complete")
    except BaseException as error:  # a signal included: what has been computed must not be lost
        is_failure = isinstance(error, Exception) and not isinstance(error, PhaseStoppedError)
        with contextlib.suppress(Exception):  # a disk that is full is full for this too; `error` says it
            _store(plan, progress, session)
        with contextlib.suppress(Exception):
            telemetry.close("failed" if is_failure else "stopped", str(error))
        with contextlib.suppress(Exception):
            run.end("FAILED" if is_failure else "KILLED")
        raise
    return progress, run


def crowding_remark(num_tasks: int, num_workers: int) -> str | None:
    """Returns what to say where workers cannot keep the programs of their share of the tasks; None: they can."""
    share = math.ceil(num_tasks / max(num_workers, 1))
    if share <= MAX_COMPILED_PROGRAMS:
        return None
    enough = math.ceil(num_tasks / MAX_COMPILED_PROGRAMS)
    return (
        f"{num_tasks} task configurations are {share} for each of {num_workers} workers, which keep "
        f"{MAX_COMPILED_PROGRAMS} compiled programs: they will compile again and again. Use at least {enough} "
        "workers, or a phase with a smaller `num_static_configs`."
    )


def _follow(
    plan: PhasePlan,
    progress: PhaseProgress,
    session: Session,
    telemetry: PhaseTelemetry,
    advance: Callable[..., None],
) -> None:
    """Takes in the learner's events, one after the other."""
    control = ControlFile(session.workspace, plan.run_name)
    control.open(plan.phase)
    try:
        with watched(control.read) as read_control:
            events = _events(plan, progress, session, read_control)
            _take_in(events, plan, progress, session, telemetry, advance)
    finally:
        control.close()


def _events(
    plan: PhasePlan, progress: PhaseProgress, session: Session, read_control: ReadControl
) -> Iterator[LearnerEvent]:
    arguments = plan.phase, plan.tasks, plan.optimizer, progress.state
    if plan.phase.mode == "synchronous":
        yield from meta_train(
            *arguments,
            session.pool,
            seed=plan.seed,
            task_seconds=plan.task_seconds,
            read_control=read_control,
        )
        return
    stream = session.pool.stream()
    try:
        yield from meta_train_asynchronously(
            *arguments,
            stream,
            seed=plan.seed,
            task_seconds=plan.task_seconds,
            read_control=read_control,
            sample_task=plan.sample_task,
            run=progress.run_id or "",
        )
    finally:
        stream.close()


def _take_in(
    events: Iterator[LearnerEvent],
    plan: PhasePlan,
    progress: PhaseProgress,
    session: Session,
    telemetry: PhaseTelemetry,
    advance: Callable[..., None],
) -> None:
    last, note = time.monotonic(), ""
    held: OuterStepDone | None = None  # a step that is not over before its validation
    for event in events:
        now = time.monotonic()
        progress.seconds, last = progress.seconds + now - last, now
        match event:
            case OuterStepDone():
                if _waits_for_validation(plan.phase, event.outer_step):
                    held = event
                else:
                    progress.take_step(event)
                advance(note=f"meta-loss {event.meta_loss:.3f}{note}")
            case Validated():
                if held is not None and event.outer_step == held.outer_step:
                    progress.take_step(held)
                    held = None
                progress.history.add_validation(event)
                first, best = progress.history.validation_range() or (event.meta_loss, event.meta_loss)
                note = f", validation {first:.3f} → {best:.3f}"
            case CheckpointDue():
                progress.state = event.state
                telemetry.flush()
                _store(plan, progress, session)
            case Paused():
                time.sleep(PAUSE_SECONDS)
        if held is None:
            progress.state = event.state
        telemetry.take(event)
    if int(progress.state.outer_step) < plan.phase.outer_steps:
        raise PhaseStoppedError(
            f"phase {plan.phase.name!r} was told to stop at outer step {int(progress.state.outer_step)} of "
            f"{plan.phase.outer_steps}; its checkpoint is stored. The same command continues."
        )


def _waits_for_validation(phase: Phase, outer_step: int) -> bool:
    """Whether a run that ends now must do the step again: its validation would be missing for ever.

    Asynchronous training goes on meanwhile, and validates again what it starts from; its last step waits.
    """
    is_last = outer_step == phase.outer_steps
    return phase.is_validated_at(outer_step) if phase.mode == "synchronous" else is_last


def _store(plan: PhasePlan, progress: PhaseProgress, session: Session) -> None:
    """Saves the state with its history, unless that has been done. The best theta is what `lopt.load` takes."""
    outer_step = int(progress.state.outer_step)
    if progress.stored is not None and progress.stored.outer_step == outer_step:
        return
    trees = {
        "theta": progress.state.best_theta,
        "learner": progress.state,
        "history": progress.history.arrays(),
    }
    metadata = {
        "architecture": plan.optimizer.model_dump(mode="json"),
        "fingerprint": plan.spec.fingerprint,
        "phase": plan.phase.name,
        "seed": plan.seed,
        "started_from": plan.started_from,
        INITIAL_SEED: plan.initial_seed,
        TRAINED_ON: _domains(plan),
        "seconds": round(progress.seconds, 3),
        "run_id": progress.run_id,
    }
    progress.stored = session.checkpoints.save(plan.run_name, outer_step, trees, metadata)


def _domains(plan: PhasePlan) -> list[dict[str, Any]] | None:
    """Returns what the weights may have been trained on, as JSON."""
    return None if plan.trained_on is None else [domain.model_dump(mode="json") for domain in plan.trained_on]


def _tracked_run(plan: PhasePlan, progress: PhaseProgress, session: Session) -> Run:
    if progress.run_id is not None:
        try:
            return session.tracker.resume_run(progress.run_id)
        except StorageError:  # the tracking database is newer than the checkpoint: start another record
            progress.run_id = None
    phase = plan.phase
    params: dict[str, Any] = {
        "phase": phase.name,
        "architecture": plan.optimizer.architecture,
        "mode": phase.mode,
        "seed": plan.seed,
        "outer_steps": phase.outer_steps,
        "learning_rate": phase.theta_optimizer.learning_rate,
        "started_from": plan.started_from,
        **{f"estimator.{name}": value for name, value in phase.estimator.model_dump(mode="json").items()},
    }
    run = session.tracker.start_run(phase.name, tags={"keirin.step": "train"}, params=params)
    run.log_text(phase.model_dump_json(indent=2), "phase.json")
    progress.run_id = run.run_id
    return run
