"""By the clock: what a step of the learned optimizer costs beside one of Adam, on every task of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from curriculum.evaluation.curves import baseline_json
from curriculum.evaluation.step_cost import CostUnit
from curriculum.evaluation.summary import CANDIDATE, INITIALISATION, EvaluationSummary, TaskResult
from flows.optimizer_reference import OptimizerReference
from flows.session import Session
from flows.workers.facts import workers_facts
from flows.workers.units import cost_unit
from lopt.config import derive
from task_generator.evaluation_set import EvaluationTask

CLOCK_BASELINE = "adam"
ANY_RATE = 1e-3
"""A step costs the same at every learning rate."""


def with_step_costs(
    summary: EvaluationSummary,
    tasks: Sequence[EvaluationTask],
    optimizer: OptimizerReference,
    session: Session,
) -> EvaluationSummary:
    """Returns the summary with the seconds of a step of the candidate, its initialisation and Adam."""
    optimizers = (optimizer.architecture, baseline_json(CLOCK_BASELINE))
    payloads = [
        (CostUnit(task.config.canonical_json(), optimizers), (optimizer.theta, ANY_RATE)) for task in tasks
    ]
    results = list(summary.tasks)
    with session.reporter.task("timing steps", len(tasks)) as progress:
        for number, (learned, baseline) in session.pool.imap_unordered(cost_unit, payloads):
            seconds = {CANDIDATE: learned, INITIALISATION: learned, CLOCK_BASELINE: baseline}
            results[number] = _with_seconds(results[number], seconds)
            progress.advance(note=tasks[number].name)
    return derive(summary, tasks=tuple(results))


def measured_on(session: Session) -> dict[str, Any]:
    """Returns when and on what an evaluation is being measured, to be kept with it: a report is made elsewhere."""
    return {"time": datetime.now(UTC).isoformat(timespec="seconds"), "machine": workers_facts(session)}


def _with_seconds(task: TaskResult, seconds: dict[str, float]) -> TaskResult:
    timed = tuple(
        derive(result, seconds_alone=seconds[result.optimizer]) if result.optimizer in seconds else result
        for result in task.results
    )
    return derive(task, results=timed)
