"""What a run of a phase tells whoever follows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from curriculum.learner import LearnerState
from curriculum.telemetry import StepTelemetry


class OuterStepDone(NamedTuple):
    """One outer step: the state after it, and what it saw."""

    outer_step: int
    state: LearnerState
    meta_loss: float
    """Mean over the units, at the perturbed thetas, on freshly drawn tasks."""
    gradient_norm: float
    num_inner_steps: float
    metrics: dict[str, float]
    """Everything else that is one number, `telemetry.metrics()` included."""
    telemetry: StepTelemetry = StepTelemetry()


class Validated(NamedTuple):
    """The averaged theta, measured on fixed tasks, data and horizons."""

    outer_step: int
    state: LearnerState
    meta_loss: float
    per_task: tuple[float, ...]
    """One meta-loss per static configuration."""
    num_inner_steps: float


class CheckpointDue(NamedTuple):
    """The state ought to be stored now."""

    outer_step: int
    state: LearnerState


class Controlled(NamedTuple):
    """A person changed numbers of the running phase; they count from here on."""

    outer_step: int
    state: LearnerState
    changes: Mapping[str, Any]


class Paused(NamedTuple):
    """The phase waits to go on; it is asked again when the next event is."""

    outer_step: int
    state: LearnerState


class TaskLeftOut(NamedTuple):
    """A task failed too often in a row, and is no longer trained on."""

    outer_step: int
    state: LearnerState
    task: str
    reasons: tuple[str, ...]


LearnerEvent = OuterStepDone | Validated | CheckpointDue | Controlled | Paused | TaskLeftOut
