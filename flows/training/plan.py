"""Which phase run is meant: the phase with its overrides, its start, its tasks, and the identity of all that.

Two runs with the same identity are the same run: the second continues or skips the first. Anything that would
change a single bit of the result (another seed, another starting theta, another run-time model where it chooses
tasks) makes another identity and another folder of checkpoints.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from curriculum.phase import Phase
from curriculum.phase_tasks import draw_phase_task, sample_phase_tasks
from curriculum.phases import CURRICULA
from curriculum.scaling import with_outer_steps
from curriculum.training_domain import TrainingDomain, domain_of
from flows.artifacts import ArtifactSpec
from flows.errors import StepIncompleteError
from flows.optimizer_reference import (
    initial_seed_of,
    initial_theta,
    optimizer_fingerprint,
    read_trained_on,
)
from flows.parameters import NEXT_PHASE, TrainParameters
from flows.run_times.models import fitted_model, load_runtime_model
from flows.session import Session
from lopt.config import derive
from lopt.contract import ArchitectureConfig
from lopt.registry import lookup
from lopt.types import Theta
from runtime_model.guess import guess_from_flops
from runtime_model.prediction import Prediction
from storage.checkpoints import load_checkpoint
from storage.errors import AliasNotFoundError, CorruptCheckpointError
from storage.model_registry import ModelRegistry
from storage.registry_reading import DEFAULT_MODEL
from task_generator.task_config import TaskConfig

VERSION = 2
"""Of what the numbers of a run are a function of; 2: every phase has random numbers of its own."""


@dataclass(frozen=True)
class PhasePlan:
    """A phase, ready to run.

    Attributes:
      phase: The phase with the user's overrides.
      optimizer: Architecture configuration of the learned optimizer.
      seed: Of everything drawn in the phase.
      theta: Where theta starts.
      started_from: What that is, for people.
      initial_seed: Of the theta that the first of its phases started from.
      trained_on: What this phase and those before it may draw; None if that of the start is not known.
      tasks: The static configurations.
      spec: The identity.
      task_seconds: Predicted seconds of a gradient step of each task; decides the order of work, and no result.
      sample_task: Draws the static configuration of that number, for a phase that re-samples.
    """

    phase: Phase
    optimizer: ArchitectureConfig
    seed: int
    theta: Theta
    started_from: str
    initial_seed: int
    trained_on: tuple[TrainingDomain, ...] | None
    tasks: tuple[TaskConfig, ...]
    spec: ArtifactSpec
    task_seconds: tuple[float, ...] | None = None
    sample_task: Callable[[int], TaskConfig] | None = None

    @property
    def run_name(self) -> str:
        """The folder of its checkpoints."""
        return f"{self.phase.name}-{self.spec.fingerprint[:8]}"


def phases_of(parameters: TrainParameters) -> tuple[Phase, ...]:
    """Returns the phases of the curriculum with the user's overrides."""
    return tuple(_with_overrides(phase, parameters) for phase in CURRICULA[parameters.curriculum])


def plan_phase(parameters: TrainParameters, session: Session) -> PhasePlan:
    """Returns the phase that `parameters` name; "next" is the first that is not complete, else the last.

    Raises:
      UnknownNameError: If the curriculum has no such phase.
      StepIncompleteError: If the phase it starts from is missing.
      BudgetUnreachableError: If no task fits the phase's problem size.
    """
    phases = phases_of(parameters)
    if parameters.phase != NEXT_PHASE:
        names = {phase.name: phase for phase in phases}
        return _plan(lookup(names, parameters.phase, kind="phase"), parameters, session)
    for phase in phases:
        plan = _plan(phase, parameters, session)
        if session.artifacts.read(plan.spec) is None:
            return plan
    return plan


def _plan(phase: Phase, parameters: TrainParameters, session: Session) -> PhasePlan:
    optimizer = parameters.optimizer()
    start = _start(phase, optimizer, parameters.seed, session.registry)
    run_times = _run_times(phase, session)
    domain = domain_of(phase)
    spec = ArtifactSpec(
        "phase",
        VERSION,
        {
            "phase": phase.model_dump(mode="json"),
            # A distribution or an evaluation set that is redefined under its name makes another run.
            "domain": domain.model_dump(mode="json"),
            "optimizer": optimizer.model_dump(mode="json"),
            "seed": parameters.seed,
        },
        (*run_times.decides, optimizer_fingerprint(optimizer.canonical_json(), start.theta)),
    )
    tasks = _tasks(phase, parameters.seed, spec, run_times.predict, session)
    seconds = tuple(run_times.predict(tasks).seconds.tolist())
    sample_task = partial(draw_phase_task, phase, run_times.predict, _tasks_seed(phase, parameters.seed))
    return PhasePlan(
        phase=phase,
        optimizer=optimizer,
        seed=parameters.seed,
        theta=start.theta,
        started_from=start.name,
        initial_seed=start.initial_seed,
        trained_on=None if start.trained_on is None else (*start.trained_on, domain),
        tasks=tasks,
        spec=spec,
        task_seconds=seconds,
        sample_task=sample_task,
    )


def _with_overrides(phase: Phase, parameters: TrainParameters) -> Phase:
    if parameters.outer_steps is not None and parameters.outer_steps != phase.outer_steps:
        phase = with_outer_steps(phase, parameters.outer_steps)
    changes: dict[str, Any] = {}
    if parameters.learning_rate is not None:
        changes["theta_optimizer"] = derive(
            phase.theta_optimizer, learning_rate=parameters.learning_rate
        ).model_dump()
    if parameters.mode is not None:
        changes["mode"] = parameters.mode
    return derive(phase, **changes)


class _Start(NamedTuple):
    """Where a phase starts: theta, what that is for people, its own start, and what it has been trained on."""

    theta: Theta
    name: str
    initial_seed: int
    trained_on: tuple[TrainingDomain, ...] | None


def _start(phase: Phase, optimizer: ArchitectureConfig, seed: int, registry: ModelRegistry) -> _Start:
    initial = initial_theta(optimizer.canonical_json(), seed)
    if phase.start_from is None:
        return _Start(initial, "the initialisation", seed, ())
    try:
        folder = registry.resolve(f"models:/{DEFAULT_MODEL}@{phase.start_from}")
    except AliasNotFoundError as error:
        raise StepIncompleteError(
            f"phase {phase.name!r} starts from the promoted checkpoint of {phase.start_from!r}, "
            f"which does not exist. Run `keirin train --phase {phase.start_from}` first."
        ) from error
    try:
        checkpoint = load_checkpoint(folder, templates={"theta": initial})
    except CorruptCheckpointError as error:
        raise CorruptCheckpointError(
            f"phase {phase.name!r} cannot start: {error} Or run `keirin train --phase {phase.start_from}`: "
            "it registers its last good checkpoint again."
        ) from error
    version = registry.aliases(DEFAULT_MODEL)[phase.start_from]
    theta = jax.tree.map(np.asarray, checkpoint.trees["theta"])
    facts = checkpoint.metadata
    name = f"{phase.start_from} (version {version})"
    return _Start(theta, name, initial_seed_of(facts), read_trained_on(facts))


class _RunTimes(NamedTuple):
    """What predicts run times, and the fingerprint of what it rests on where that decides which tasks there are."""

    predict: Callable[[Sequence[TaskConfig]], Prediction]
    decides: tuple[str, ...] = ()


def _run_times(phase: Phase, session: Session) -> _RunTimes:
    """Returns what a phase's tasks are chosen by. Whole tasks are not chosen: nothing is fitted for their order."""
    if not phase.whole_tasks():
        fingerprint, model = load_runtime_model(session)
        return _RunTimes(model.predict, (fingerprint,))
    fitted = fitted_model(session)
    return _RunTimes(guess_from_flops if fitted is None else fitted[1].predict)


def _tasks(
    phase: Phase,
    seed: int,
    spec: ArtifactSpec,
    predict: Callable[[Sequence[TaskConfig]], Prediction],
    session: Session,
) -> tuple[TaskConfig, ...]:
    """Returns the phase's tasks: drawn once, then remembered."""
    tasks_spec = ArtifactSpec("phase-tasks", VERSION, spec.config, spec.dependencies)
    known = session.artifacts.read(tasks_spec)
    if known is None:
        drawn = sample_phase_tasks(phase, predict, seed=_tasks_seed(phase, seed))
        known = {"tasks": [task.model_dump(mode="json") for task in drawn]}
        session.artifacts.write(tasks_spec, known)
    return tuple(TaskConfig.model_validate(task) for task in known["tasks"])


def _tasks_seed(phase: Phase, seed: int) -> int:
    """Phases of one pipeline share its seed and must not share their tasks."""
    return seed + zlib.crc32(phase.name.encode())
