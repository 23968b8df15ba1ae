"""The learning curves of an evaluation: computed on the workers once, then read from the store.

Each stored curve is one (task, optimizer, setting, seed). A unit of work computes all settings and seeds of one
optimizer on one task in one program, so a unit is skipped if all of its curves are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from curriculum.curves import CurveBatch, CurveUnit, baseline_json
from curriculum.evaluation import CANDIDATE, INITIALISATION, NORMALIZER, EvaluationConfig
from flows.optimizer_reference import OptimizerReference, optimizer_fingerprint
from flows.progress import Listener
from flows.session import Session
from flows.units import curve_unit
from storage.curves import CurveKey, CurveRow
from task_generator.evaluation_set import EvaluationTask

LEARNED = "learned"


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


def compute_curves(
    jobs: list[CurveJob], session: Session, on_percent: Listener
) -> dict[tuple[str, str], CurveBatch]:
    """Returns the curves of every job by (task name, job name); computes those that are not stored."""
    batches = {
        (job.task.name, job.name): stored for job in jobs if (stored := _read(job, session)) is not None
    }
    missing = [job for job in jobs if (job.task.name, job.name) not in batches]
    if batches:
        session.reporter.line(f"{len(batches)} of {len(jobs)} sets of curves were computed before")
    with session.reporter.task("evaluating", len(jobs), done=len(batches)) as progress:
        progress.listen(on_percent)
        payloads = [(job.unit, job.settings) for job in missing]
        for index, batch in session.pool.imap_unordered(curve_unit, payloads):
            job = missing[index]
            _write(job, batch, session)
            batches[job.task.name, job.name] = batch
            progress.advance(note=f"{job.task.name}, {job.name}")
    return batches


def _learned(task: EvaluationTask, optimizer: OptimizerReference, config: EvaluationConfig) -> CurveJob:
    initial = optimizer_fingerprint(optimizer.architecture, optimizer.initial_theta)
    return CurveJob(
        task=task,
        name=LEARNED,
        unit=_unit(task, optimizer.architecture, config, config.points_per_horizon),
        settings=(optimizer.theta, optimizer.initial_theta),
        identities=((optimizer.fingerprint, {}), (initial, {})),
    )


def _baselines(task: EvaluationTask, config: EvaluationConfig) -> list[CurveJob]:
    jobs = []
    for name in config.baselines:
        # Only the normaliser runs on past the horizon: it has to show how long it needs to catch up.
        factor = config.normalizer_factor if name == NORMALIZER else 1
        rates = config.learning_rates
        jobs.append(
            CurveJob(
                task=task,
                name=name,
                unit=_unit(task, baseline_json(name), config, factor * config.points_per_horizon),
                settings=rates,
                identities=tuple((name, {"learning_rate": rate}) for rate in rates),
            )
        )
    return jobs


def _unit(task: EvaluationTask, optimizer: str, config: EvaluationConfig, num_intervals: int) -> CurveUnit:
    return CurveUnit(
        task=task.config.canonical_json(),
        optimizer=optimizer,
        seeds=tuple(range(config.num_seeds)),
        horizon=config.horizon,
        num_points=num_intervals + 1,
        eval_every=config.eval_every,
    )


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
