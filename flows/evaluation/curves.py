"""The learning curves of an evaluation: computed on the workers once, then read from the store.

Each stored curve is one (task, optimizer, setting, seed). A unit of work computes all settings and seeds of one
optimizer on one task in one program, so a unit is skipped if all of its curves are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from curriculum.evaluation.baseline_budgets import Trials
from curriculum.evaluation.curves import CurveBatch, CurveUnit, baseline_json
from curriculum.evaluation.summary import CANDIDATE, INITIALISATION, EvaluationConfig
from flows.optimizer_reference import OptimizerReference, optimizer_fingerprint
from flows.progress import Listener
from flows.session import Session
from flows.workers.units import curve_unit
from lopt.baselines import Setting
from storage.curves import CurveKey, CurveRow
from task_generator.evaluation_set import EvaluationTask

LEARNED = "learned"
TRIALS_PER_UNIT = 250
"""Of one baseline on one task: minutes of work, which is what an interrupted evaluation may lose."""
MAX_SETTINGS = 32
MAX_NUMBERS = 2e7
"""Parameters of all runs of a program together; optimizers keep a few numbers for each."""


@dataclass(frozen=True)
class CurveJob:
    """One unit of work, with what its settings are called.

    Attributes:
      task: What is trained.
      name: A baseline, or `LEARNED`.
      unit: What a worker gets.
      settings: What it gets with it: learning rates, or weights.
      identities: Per setting, the name of the optimizer and its hyper-parameters.
    """

    task: EvaluationTask
    name: str
    unit: CurveUnit
    settings: tuple[Any, ...]
    identities: tuple[tuple[str, dict[str, Any]], ...]

    def key(self, setting: int, seed: int) -> CurveKey:
        """Returns what identifies a curve."""
        optimizer, hyperparameters = self.identities[setting]
        measured = {
            "told_steps": self.unit.horizon,
            "eval_every": self.unit.eval_every,
            "num_eval_batches": self.unit.num_eval_batches,
        }
        return CurveKey(
            task=self.task.config.fingerprint(),
            optimizer=optimizer,
            horizon=(self.unit.num_points - 1) * self.unit.eval_every,
            seed=seed,
            hyperparameters={**hyperparameters, **measured},
        )


def plan_jobs(
    tasks: list[EvaluationTask], optimizer: OptimizerReference, config: EvaluationConfig
) -> list[CurveJob]:
    """Returns every unit of an evaluation: per task the learned optimizer and each baseline."""
    return [job for task in tasks for job in (_learned(task, optimizer, config), *_baselines(task, config))]


def plan_baselines(tasks: list[EvaluationTask], config: EvaluationConfig) -> list[CurveJob]:
    """Returns the units of the baselines alone: what every later evaluation finds computed."""
    return [job for task in tasks for job in _baselines(task, config)]


def compute_curves(
    jobs: list[CurveJob], session: Session, on_percent: Listener
) -> dict[tuple[str, str], CurveBatch]:
    """Returns the curves by (task name, optimizer's name); computes those that are not stored."""
    parts = {number: stored for number, job in enumerate(jobs) if (stored := _read(job, session)) is not None}
    missing = [number for number in range(len(jobs)) if number not in parts]
    if parts:
        session.reporter.line(f"{len(parts)} of {len(jobs)} sets of curves were computed before")
    with session.reporter.task("evaluating", len(jobs), done=len(parts)) as progress:
        progress.listen(on_percent)
        payloads = [(jobs[number].unit, jobs[number].settings) for number in missing]
        for index, batch in session.pool.imap_unordered(curve_unit, payloads):
            job = jobs[missing[index]]
            _write(job, batch, session)
            parts[missing[index]] = batch
            progress.advance(note=f"{job.task.name}, {job.name}")
    return _joined(jobs, parts)


def _joined(jobs: list[CurveJob], parts: Mapping[int, CurveBatch]) -> dict[tuple[str, str], CurveBatch]:
    """Puts the slices of a baseline's trials together, in the order of the jobs."""
    groups: dict[tuple[str, str], list[CurveBatch]] = {}
    for number, job in enumerate(jobs):
        groups.setdefault((job.task.name, job.name), []).append(parts[number])
    return {name: _concatenate(batches) for name, batches in groups.items()}


def _concatenate(batches: list[CurveBatch]) -> CurveBatch:
    if len(batches) == 1:
        return batches[0]
    return CurveBatch(
        step=batches[0].step,
        losses={split: np.concatenate([b.losses[split] for b in batches]) for split in batches[0].losses},
        seconds_per_step=float(np.mean([batch.seconds_per_step for batch in batches])),
    )


def _learned(task: EvaluationTask, optimizer: OptimizerReference, config: EvaluationConfig) -> CurveJob:
    initial = optimizer_fingerprint(optimizer.architecture, optimizer.initial_theta)
    return CurveJob(
        task=task,
        name=LEARNED,
        unit=_unit(task, optimizer.architecture, config, config.last_point),
        settings=(optimizer.theta, optimizer.initial_theta),
        identities=((optimizer.fingerprint, {}), (initial, {})),
    )


def _baselines(task: EvaluationTask, config: EvaluationConfig) -> list[CurveJob]:
    return [
        _slice(task, config, trials, first)
        for trials in config.trials
        for first in range(0, trials.num_trials, TRIALS_PER_UNIT)
    ]


def _slice(task: EvaluationTask, config: EvaluationConfig, trials: Trials, first: int) -> CurveJob:
    settings = trials.settings()[first : first + TRIALS_PER_UNIT]
    name = trials.baseline
    return CurveJob(
        task=task,
        name=name,
        unit=_unit(task, baseline_json(name), config, config.num_intervals(name)),
        settings=settings,
        identities=tuple((name, hyperparameters(setting)) for setting in settings),
    )


def hyperparameters(setting: Setting) -> dict[str, Any]:
    """Returns a trial's settings as JSON: what a stored curve is found by."""
    if isinstance(setting, float):
        return {"learning_rate": setting}
    return {name: float(value) for name, value in setting._asdict().items()}


def _unit(task: EvaluationTask, optimizer: str, config: EvaluationConfig, num_intervals: int) -> CurveUnit:
    return CurveUnit(
        task=task.config.canonical_json(),
        optimizer=optimizer,
        seeds=tuple(range(config.num_seeds)),
        horizon=config.horizon,
        num_points=num_intervals + 1,
        eval_every=config.eval_every,
        settings_at_once=_settings_at_once(task, config.num_seeds),
    )


def _settings_at_once(task: EvaluationTask, num_seeds: int) -> int:
    """Returns how many settings one program trains together: as many as `MAX_NUMBERS` holds the parameters of."""
    num_params = max(task.config.approximate_cost()["num_params"], 1.0)
    return int(np.clip(MAX_NUMBERS / (num_params * num_seeds), 1, MAX_SETTINGS))


def _read(job: CurveJob, session: Session) -> CurveBatch | None:
    table: list[list[CurveRow]] = []
    for setting in range(len(job.settings)):
        rows = [session.curves.get(job.key(setting, seed)) for seed in job.unit.seeds]
        found = [row for row in rows if row is not None]
        if len(found) < len(rows):
            return None
        table.append(found)
    first = table[0][0]
    return CurveBatch(
        step=first.step,
        losses={
            split: np.stack([[row.losses[split] for row in rows] for rows in table]) for split in first.losses
        },
        seconds_per_step=first.seconds / max(first.key.horizon, 1),
    )


def _write(job: CurveJob, batch: CurveBatch, session: Session) -> None:
    names = [CANDIDATE, INITIALISATION] if job.name == LEARNED else [job.name] * len(job.settings)
    for setting, name in enumerate(names):
        for index, seed in enumerate(job.unit.seeds):
            key = job.key(setting, seed)
            losses = {split: values[setting, index] for split, values in batch.losses.items()}
            labels = {"task_name": job.task.name, "role": name}
            session.curves.append(
                CurveRow(key, batch.step, losses, batch.seconds_per_step * key.horizon, labels)
            )
