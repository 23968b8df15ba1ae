"""The learning curves of an evaluation: computed on the workers once, then read from the store.

Each stored curve is one (task, optimizer, setting, seed). A unit of work computes some settings with some seeds of
one optimizer on one task: those that are not stored, and no others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from curriculum.evaluation.baseline_budgets import Trials
from curriculum.evaluation.curves import CurveBatch, CurveUnit, baseline_json
from curriculum.evaluation.summary import CANDIDATE, INITIALISATION, EvaluationConfig
from flows.evaluation.missing_curves import MissingCurves, missing_curves
from flows.evaluation.unit_size import seconds_allowed, settings_per_program, settings_per_unit
from flows.evaluation.versions import CURVES_VERSION, data_versions, dataset_names, require_data
from flows.optimizer_reference import OptimizerReference, optimizer_fingerprint
from flows.progress import Listener
from flows.session import Session
from flows.workers.facts import curve_labels, workers_facts
from flows.workers.units import curve_unit
from lopt.baselines import Setting
from storage.curves import IMPORTED, CurveKey, CurveRow
from task_generator.evaluation_set import EvaluationTask

LEARNED = "learned"
Rows = dict[tuple[int, int], CurveRow]
"""Curves of a job by (setting, seed)."""


@dataclass(frozen=True)
class CurveJob:
    """Curves of one optimizer on one task: some settings, each with every seed.

    Attributes:
      task: What is trained.
      name: A baseline, or `LEARNED`.
      unit: What a worker gets if none of them is stored.
      settings: What it gets with it: learning rates, or weights.
      identities: Per setting, the name of the optimizer and its hyper-parameters.
      data: Versions of the task's data, by name.
      role: What it is in the evaluation: a baseline, the candidate or its initialisation.
    """

    task: EvaluationTask
    name: str
    unit: CurveUnit
    settings: tuple[Any, ...]
    identities: tuple[tuple[str, dict[str, Any]], ...]
    data: Mapping[str, str]
    role: str

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
            horizon=self.unit.num_steps,
            seed=seed,
            hyperparameters={**hyperparameters, **measured},
            data=dict(self.data),
            version=CURVES_VERSION,
        )

    def payload(self, part: MissingCurves) -> tuple[CurveUnit, tuple[Any, ...], dict[str, str]]:
        """Returns what a worker gets for some of the curves."""
        at_once = settings_per_program(self.task.config, len(part.seeds))
        unit = self.unit._replace(seeds=part.seeds, settings_at_once=at_once)
        return unit, tuple(self.settings[number] for number in part.settings), dict(self.data)

    def seconds_allowed(self, part: MissingCurves) -> float:
        """Returns after how long a worker that computes some of the curves hangs."""
        num_runs = len(part.settings) * len(part.seeds)
        return seconds_allowed(self.task.config, num_runs, self.unit.num_steps)

    def rows(self, part: MissingCurves, batch: CurveBatch, labels: Mapping[str, str]) -> Rows:
        """Returns the curves that a worker computed, as they are stored."""
        rows = {}
        for row, setting in enumerate(part.settings):
            for column, seed in enumerate(part.seeds):
                rows[setting, seed] = CurveRow(
                    key=(key := self.key(setting, seed)),
                    step=batch.step,
                    losses={split: values[row, column] for split, values in batch.losses.items()},
                    seconds=batch.seconds_per_step * key.horizon,
                    labels={"task_name": self.task.name, "role": self.role, **labels},
                )
        return rows


class Curves(NamedTuple):
    """The curves of an evaluation.

    Attributes:
      batches: By (task name, optimizer's name).
      imported: How many were not computed here, by the file that they came with.
    """

    batches: dict[tuple[str, str], CurveBatch]
    imported: Counter[str]


def plan_jobs(
    tasks: list[EvaluationTask], optimizer: OptimizerReference, config: EvaluationConfig
) -> list[CurveJob]:
    """Returns every job of an evaluation: per task the learned optimizer, its initialisation and each baseline."""
    versions = data_versions(task.config for task in tasks)
    return [
        job
        for task in tasks
        for job in (*_learned(task, optimizer, config, versions), *_baselines(task, config, versions))
    ]


def plan_baselines(tasks: list[EvaluationTask], config: EvaluationConfig) -> list[CurveJob]:
    """Returns the jobs of the baselines alone: what every later evaluation finds computed."""
    versions = data_versions(task.config for task in tasks)
    return [job for task in tasks for job in _baselines(task, config, versions)]


def compute_curves(jobs: list[CurveJob], session: Session, on_percent: Listener) -> Curves:
    """Returns the curves of all jobs; computes those that are not stored, and no others."""
    parts: dict[int, CurveBatch] = {}
    imported: Counter[str] = Counter()
    incomplete: dict[int, Rows] = {}
    units: list[tuple[int, MissingCurves]] = []
    planned: set[str] = set()
    for number, (job, rows) in enumerate(_all_stored(jobs, session)):
        imported.update(row.labels[IMPORTED] for row in rows.values() if IMPORTED in row.labels)
        if len(rows) == len(job.settings) * len(job.unit.seeds):
            parts[number] = _batch(job, rows)
        else:
            incomplete[number] = rows
            units += [(number, part) for part in _missing(job, rows, planned)]
    if parts:
        session.reporter.line(f"{len(parts)} of {len(jobs)} sets of curves were computed before")
    with session.reporter.task("evaluating", len(parts) + len(units), done=len(parts)) as progress:
        progress.listen(on_percent)
        labels = curve_labels(workers_facts(session)) if units else {}
        payloads = [jobs[number].payload(part) for number, part in units]
        allowed = max((jobs[number].seconds_allowed(part) for number, part in units), default=None)
        for index, batch in session.pool.imap_unordered(curve_unit_on_these_data, payloads, timeout=allowed):
            number, part = units[index]
            rows = jobs[number].rows(part, batch, labels)
            for row in rows.values():
                session.curves.append(row)
            incomplete[number].update(rows)
            progress.advance(note=f"{jobs[number].task.name}, {jobs[number].role}")
    for number, rows in incomplete.items():
        parts[number] = _batch(jobs[number], rows | _stored(jobs[number], session, besides=rows))
    return Curves(_joined(jobs, parts), imported)


def curve_unit_on_these_data(unit: CurveUnit, settings: tuple[Any, ...], data: dict[str, str]) -> CurveBatch:
    """Computes one unit's curves on this worker, if its data are those that the curves are stored under.

    Raises:
      StorageError: If they are others.
    """
    require_data(unit.task, data)
    return curve_unit(unit, settings)


def _all_stored(jobs: list[CurveJob], session: Session) -> Iterator[tuple[CurveJob, Rows]]:
    """Yields every job with those of its curves that are stored, and says how far it is: it can take a minute."""
    with session.reporter.task("looking for stored curves", len(jobs)) as progress:
        for job in jobs:
            yield job, _stored(job, session)
            progress.advance()


def _stored(job: CurveJob, session: Session, *, besides: Rows | None = None) -> Rows:
    """Returns the curves of a job that are stored, undamaged; those of `besides` are not looked for."""
    rows = {}
    for place in ((setting, seed) for setting in range(len(job.settings)) for seed in job.unit.seeds):
        if besides is None or place not in besides:
            row = session.curves.get(job.key(*place))
            if row is not None:
                rows[place] = row
    return rows


def _missing(job: CurveJob, rows: Rows, planned: set[str]) -> list[MissingCurves]:
    """Returns what is left of a job to compute; adds it to `planned`, the digests of what another job computes."""

    def is_missing(setting: int, seed: int) -> bool:
        digest = job.key(setting, seed).digest()
        if (setting, seed) in rows or digest in planned:
            return False
        planned.add(digest)
        return True

    grids = missing_curves(len(job.settings), job.unit.seeds, is_missing)
    config, num_steps = job.task.config, job.unit.num_steps
    return [
        part for grid in grids for part in grid.split(settings_per_unit(config, len(grid.seeds), num_steps))
    ]


def _batch(job: CurveJob, rows: Rows) -> CurveBatch:
    """Returns all curves of a job together."""
    table = [[rows[setting, seed] for seed in job.unit.seeds] for setting in range(len(job.settings))]
    first = table[0][0]
    losses = {
        split: np.stack([[row.losses[split] for row in each] for each in table])
        for split in _shared_splits(list(rows.values()))
    }
    seconds = [row.seconds / max(row.key.horizon, 1) for row in rows.values()]
    return CurveBatch(first.step, losses, seconds_per_step=float(np.mean(seconds)))


def _shared_splits(curves: Sequence[CurveRow] | Sequence[CurveBatch]) -> list[str]:
    """Returns the splits that all have: an import may have left one out that curves computed here have."""
    return [split for split in curves[0].losses if all(split in each.losses for each in curves)]


def _joined(jobs: list[CurveJob], parts: Mapping[int, CurveBatch]) -> dict[tuple[str, str], CurveBatch]:
    """Puts the learned optimizer and its initialisation together, in the order of the jobs."""
    groups: dict[tuple[str, str], list[CurveBatch]] = {}
    for number, job in enumerate(jobs):
        groups.setdefault((job.task.name, job.name), []).append(parts[number])
    return {name: _concatenate(batches) for name, batches in groups.items()}


def _concatenate(batches: list[CurveBatch]) -> CurveBatch:
    if len(batches) == 1:
        return batches[0]
    return CurveBatch(
        step=batches[0].step,
        losses={
            split: np.concatenate([batch.losses[split] for batch in batches])
            for split in _shared_splits(batches)
        },
        seconds_per_step=float(np.mean([batch.seconds_per_step for batch in batches])),
    )


def _learned(
    task: EvaluationTask, optimizer: OptimizerReference, config: EvaluationConfig, versions: Mapping[str, str]
) -> list[CurveJob]:
    """Returns the candidate and its initialisation, apart: that one is the same for every checkpoint of a run."""
    initial = optimizer_fingerprint(optimizer.architecture, optimizer.initial_theta)
    return [
        CurveJob(
            task=task,
            name=LEARNED,
            unit=_unit(task, optimizer.architecture, config, config.last_point, config.horizon),
            settings=(theta,),
            identities=((fingerprint, {}),),
            data=_of_task(task, versions),
            role=role,
        )
        for role, theta, fingerprint in (
            (CANDIDATE, optimizer.theta, optimizer.fingerprint),
            (INITIALISATION, optimizer.initial_theta, initial),
        )
    ]


def _baselines(task: EvaluationTask, config: EvaluationConfig, versions: Mapping[str, str]) -> list[CurveJob]:
    return [_baseline(task, config, trials, versions) for trials in config.all_trials]


def _baseline(
    task: EvaluationTask, config: EvaluationConfig, trials: Trials, versions: Mapping[str, str]
) -> CurveJob:
    settings, name = trials.settings(), trials.baseline
    return CurveJob(
        task=task,
        name=name,
        unit=_unit(task, baseline_json(name), config, config.num_intervals(name), config.told_steps(name)),
        settings=settings,
        identities=tuple((name, hyperparameters(setting)) for setting in settings),
        data=_of_task(task, versions),
        role=name,
    )


def _of_task(task: EvaluationTask, versions: Mapping[str, str]) -> dict[str, str]:
    return {name: versions[name] for name in sorted(dataset_names(task.config)) if name in versions}


def hyperparameters(setting: Setting) -> dict[str, Any]:
    """Returns a trial's settings as JSON: what a stored curve is found by."""
    if isinstance(setting, float):
        return {"learning_rate": setting}
    return {name: float(value) for name, value in setting._asdict().items()}


def _unit(
    task: EvaluationTask, optimizer: str, config: EvaluationConfig, num_intervals: int, told_steps: int
) -> CurveUnit:
    return CurveUnit(
        task=task.config.canonical_json(),
        optimizer=optimizer,
        seeds=tuple(range(config.num_seeds)),
        horizon=told_steps,
        num_points=num_intervals + 1,
        eval_every=config.eval_every,
    )
