"""The synchronous meta-training loop over a pool of workers: a generator of events, without any I/O.

Each outer step sends one unit per static configuration, waits for all of them, adds the gradients in a fixed
order and moves theta. All randomness is a function of (phase seed, outer step, unit), so a run that was stopped
and resumed from a checkpoint is the uninterrupted run, bit for bit, and so is one with more or fewer workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from curriculum.control import ReadControl, controlled, no_control
from curriculum.events import CheckpointDue, Controlled, LearnerEvent, OuterStepDone, Paused, Validated
from curriculum.learner import LearnerState, aggregate, apply_meta_gradient, record_validation
from curriculum.phase import Phase
from curriculum.telemetry import GradientTrace, UnitTally
from curriculum.units_of_work import TRAINING, VALIDATION, root_of, transport_of, work_units
from curriculum.work_plan import WorkPlan
from curriculum.worker import WorkerPool, WorkResult, WorkUnit, run_work_unit
from lopt.config import FrozenConfig
from lopt.estimators import validation_estimator
from lopt.estimators.evolution import TasksConfig
from lopt.types import PyTree, Theta
from task_generator.task_config import TaskConfig


def meta_train(
    phase: Phase,
    tasks: Sequence[TaskConfig],
    optimizer: FrozenConfig,
    state: LearnerState,
    pool: WorkerPool,
    *,
    seed: int,
    task_seconds: Sequence[float] | None = None,
    read_control: ReadControl = no_control,
) -> Iterator[LearnerEvent]:
    """Yields events from `state` to the end of the phase.

    A fresh state is validated before its first step, so that every curve starts at the initialisation.

    Args:
      phase: What to do.
      tasks: The static configurations, one work unit each per outer step.
      optimizer: Architecture configuration of the learned optimizer.
      state: Where to start: `init_learner(…)` or a restored checkpoint.
      pool: Who computes.
      seed: Of the phase.
      task_seconds: Predicted seconds of a gradient step of each task: what takes longest starts first
        (`curriculum.work_plan`). Changes no result. None: nothing is known.
      read_control: What a person wants now; asked before every outer step. A changed learning rate changes results.

    Raises:
      ValueError: If the number of tasks is not the phase's.
    """
    if len(tasks) != phase.num_static_configs:
        raise ValueError(
            f"phase {phase.name!r} holds num_static_configs={phase.num_static_configs} tasks, got {len(tasks)}"
        )
    outer_step, tally = int(state.outer_step), UnitTally()
    plan = None if task_seconds is None else WorkPlan(tasks, task_seconds)
    if outer_step == 0 and np.isinf(float(state.best_validation)):
        validated = _validate(phase, tasks, optimizer, state, pool, tally, seed=seed, plan=plan)
        state = validated.state
        yield validated
        yield CheckpointDue(0, state)
    original, changes, trace = phase, dict[str, Any](), GradientTrace()
    while outer_step < phase.outer_steps:
        control = read_control()
        if control.command == "stop":
            yield CheckpointDue(outer_step, state)
            return
        if control.command == "pause":
            yield Paused(outer_step, state)
            continue
        if control.changes != changes:
            changes, phase = control.changes, controlled(original, control)
            yield Controlled(outer_step, state, changes)
        done = _outer_step(phase, tasks, optimizer, state, pool, trace, tally, seed=seed, plan=plan)
        state, outer_step, tally = done.state, done.outer_step, UnitTally()
        yield done
        last = outer_step == phase.outer_steps
        if phase.is_validated_at(outer_step):
            validated = _validate(phase, tasks, optimizer, state, pool, tally, seed=seed, plan=plan)
            state = validated.state
            yield validated
        if last or outer_step % phase.checkpoint_every == 0:
            yield CheckpointDue(outer_step, state)


def _run(
    pool: WorkerPool,
    plan: WorkPlan | None,
    estimator: TasksConfig,
    units: Sequence[WorkUnit],
    theta: Theta,
    states: Sequence[PyTree] = (),
) -> list[WorkResult]:
    theta = jax.tree.map(np.asarray, theta)
    payloads = [(unit, theta, state) for unit, state in zip(units, states or [()] * len(units), strict=True)]
    costs = None if plan is None else plan.costs(estimator, units, states)
    results = pool.run_all(run_work_unit, payloads, affinity=[unit.task for unit in units], costs=costs)
    if plan is not None:
        for task, result in enumerate(results):
            plan.take(task, result)
    return results


def _outer_step(
    phase: Phase,
    tasks: Sequence[TaskConfig],
    optimizer: FrozenConfig,
    state: LearnerState,
    pool: WorkerPool,
    trace: GradientTrace,
    tally: UnitTally,
    *,
    seed: int,
    plan: WorkPlan | None,
) -> OuterStepDone:
    transport, step = transport_of(phase, state.theta), int(state.outer_step)
    units = work_units(
        phase.estimator,
        tasks,
        optimizer,
        seed=(*root_of(phase, seed), TRAINING, step),
        transport=transport.name,
        outer_step=step,
    )
    results = _run(pool, plan, phase.estimator, units, state.theta, state.estimator_states)
    used = {task: result for task, result in enumerate(results) if result.is_finite}
    if used:
        gradient = aggregate(
            [transport.unpack(result.gradient, phase.estimator, state.theta) for result in used.values()]
        )
        state = apply_meta_gradient(phase, state, gradient)
    else:  # nothing to go by: theta stays
        gradient = jax.tree.map(np.zeros_like, state.theta)
        state = state._replace(outer_step=state.outer_step + 1)
    if state.estimator_states:
        state = state._replace(estimator_states=tuple(result.state for result in results))
    gradient_norm, cosine = trace.follow(gradient)
    for task, result in enumerate(results):
        tally.received(0, result.cost)
        if task in used:
            tally.used(task, result.meta_loss, result.squared_norm)
        else:
            tally.num_not_finite += 1
    telemetry = tally.telemetry(gradient_norm, cosine, tasks)
    return OuterStepDone(
        outer_step=int(state.outer_step),
        state=state,
        meta_loss=float(np.mean([result.meta_loss for result in used.values()] or [np.nan])),
        gradient_norm=gradient_norm,
        num_inner_steps=sum(result.num_inner_steps for result in results),
        metrics=_mean_metrics(results) | telemetry.metrics(),
        telemetry=telemetry,
    )


def _validate(
    phase: Phase,
    tasks: Sequence[TaskConfig],
    optimizer: FrozenConfig,
    state: LearnerState,
    pool: WorkerPool,
    tally: UnitTally,
    *,
    seed: int,
    plan: WorkPlan | None,
) -> Validated:
    estimator = validation_estimator(phase.estimator)
    units = work_units(estimator, tasks, optimizer, seed=(*root_of(phase, seed), VALIDATION), sigma=0.0)
    results = _run(pool, plan, estimator, units, state.theta_average)
    for result in results:
        tally.spent(result.cost)
    per_task = tuple(result.meta_loss for result in results)
    meta_loss = float(np.mean(per_task))
    return Validated(
        outer_step=int(state.outer_step),
        state=record_validation(state, meta_loss),
        meta_loss=meta_loss,
        per_task=per_task,
        num_inner_steps=sum(result.num_inner_steps for result in results),
    )


def _mean_metrics(results: Sequence[WorkResult]) -> dict[str, float]:
    return {name: float(np.mean([r.metrics[name] for r in results])) for name in results[0].metrics}
