"""Tables of optimizers over a set of tasks: one trial each, and the best of many.

`TrialSpeedups` is what every row is made from: the speed-ups of every trial of every optimizer on every task. A row
with one trial uses one setting for all tasks, as a person without time to tune would; a row with n trials uses, per
task, the one with the lowest final loss of n, as a person would who trains n times and keeps the best.

[1] Metz et al. 2022, "VeLO", App. G.12, Tables 1-4: columns, clips, and which single trials are shown.
[2] Almeida et al. 2021, "A Generalizable Approach to Learning Optimizers", Sec. 4.1: share of tasks at least twice
    as fast. [3] Agarwal et al. 2021: interquartile mean and its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from curriculum.evaluation.aggregate import (
    share_at_least,
    stratified_bootstrap,
    task_bootstrap,
    task_quantile,
)
from lopt.config import FrozenConfig

MAX_SPEEDUP, MAX_COST = 30.0, 10.0
"""Per-task clips of the two means in [1]."""
QUANTILES = (0.05, 0.10, 0.25, 0.50, 0.75)


class TrialSpeedups(NamedTuple):
    """One optimizer with all of its trials on all tasks."""

    name: str
    label: str
    settings: tuple[str, ...]
    """What each trial is called; "" where nothing was chosen."""
    speedups: np.ndarray  # [tasks, trials, seeds]; 0 where it diverged
    losses: np.ndarray  # [tasks, trials, seeds], at the horizon

    @property
    def num_trials(self) -> int:
        """How many there are."""
        return len(self.settings)

    def chosen(self, num_trials: int | None = None) -> np.ndarray:
        """Returns, per task, the trial with the lowest seed-averaged loss of the first `num_trials`: [tasks]."""
        mean = np.mean(self.losses[:, :num_trials], axis=-1)
        index: np.ndarray = np.argmin(np.where(np.isfinite(mean), mean, np.inf), axis=1)
        return index

    def best(self, num_trials: int | None = None) -> np.ndarray:
        """Returns the speed-ups [tasks, seeds] of the chosen trials."""
        return np.take_along_axis(self.speedups, self.chosen(num_trials)[:, None, None], axis=1)[:, 0]


class Row(FrozenConfig):
    """One line of a table. `iqm` and its ends are NaN-free by construction; n is beside every number."""

    name: str
    num_trials: int
    mean_speedup: float
    """Mean over tasks, each clipped at 30."""
    mean_cost: float
    """Mean over tasks of the reciprocal, each clipped at 10."""
    quantiles: tuple[float, ...]
    iqm: float
    iqm_over_seeds: tuple[float, float]
    """95 % interval: other seeds, the same tasks."""
    iqm_over_tasks: tuple[float, float]
    """95 % interval: other tasks like these."""
    share_twice: float
    """Share of tasks with a speed-up of at least 2."""
    num_diverged: int
    """Runs that ended with a loss that is not finite, or no better than at the start."""
    num_tasks: int
    num_seeds: int


def make_row(name: str, num_trials: int, speedups: np.ndarray) -> Row:
    """Returns the row of one optimizer.

    Args:
      name: Of the row.
      num_trials: Trainings per task that it needs.
      speedups: [tasks, seeds], finite.
    """
    per_task = speedups.mean(axis=1)
    over_seeds, over_tasks = stratified_bootstrap(speedups), task_bootstrap(speedups)
    with np.errstate(divide="ignore"):
        cost = np.minimum(1.0 / per_task, MAX_COST)
    return Row(
        name=name,
        num_trials=num_trials,
        mean_speedup=float(np.minimum(per_task, MAX_SPEEDUP).mean()),
        mean_cost=float(cost.mean()),
        quantiles=tuple(float(task_quantile(q)(speedups)) for q in QUANTILES),
        iqm=over_seeds.value,
        iqm_over_seeds=(over_seeds.low, over_seeds.high),
        iqm_over_tasks=(over_tasks.low, over_tasks.high),
        share_twice=float(share_at_least(2.0)(speedups)),
        num_diverged=int(np.sum(speedups == 0.0)),
        num_tasks=speedups.shape[0],
        num_seeds=speedups.shape[1],
    )


def single_trial_rows(optimizer: TrialSpeedups) -> list[Row]:
    """Returns the rows that need one training per task (Tables 1 and 3 of [1]).

    Of several trials two are shown: the best in the mean over tasks and the best in the median; where that is one,
    the second best in the median as well.
    """
    if optimizer.num_trials == 1 or optimizer.name == "opt_list":  # a list is used from its head
        return [make_row(_named(optimizer, 0), 1, optimizer.speedups[:, 0])]
    per_task = optimizer.speedups.mean(axis=-1)  # [tasks, trials]
    by_mean = int(np.argmax(np.minimum(per_task, MAX_SPEEDUP).mean(axis=0)))
    by_median = np.argsort(-np.median(per_task, axis=0), kind="stable")
    second = next(int(trial) for trial in by_median if trial != by_mean)
    return [make_row(_named(optimizer, i), 1, optimizer.speedups[:, i]) for i in (by_mean, second)]


def best_of_rows(optimizers: Sequence[TrialSpeedups]) -> list[Row]:
    """Returns the rows that need several trainings per task (Tables 2 and 4 of [1]), one per optimizer."""
    rows = []
    for optimizer in optimizers:
        total = optimizer.num_trials
        counts = sorted({5, 10, total}) if optimizer.name == "opt_list" else [total]
        rows += [
            make_row(f"{optimizer.label}, best of {n}" if n > 1 else optimizer.label, n, optimizer.best(n))
            for n in counts
            if n <= total
        ]
    return rows


def best_of_all(name: str, optimizers: Sequence[TrialSpeedups]) -> Row:
    """Returns the row of whichever of `optimizers`, with whichever of its trials, ends lowest on each task.

    Raises:
      ValueError: If there is none.
    """
    if not optimizers:
        raise ValueError(f"`optimizers` of the row {name!r} must name at least one, got none")
    everything = TrialSpeedups(
        name,
        name,
        tuple(setting for optimizer in optimizers for setting in optimizer.settings),
        np.concatenate([optimizer.speedups for optimizer in optimizers], axis=1),
        np.concatenate([optimizer.losses for optimizer in optimizers], axis=1),
    )
    return make_row(name, len(everything.settings), everything.best())


def _named(optimizer: TrialSpeedups, trial: int) -> str:
    setting = optimizer.settings[trial]
    return f"{optimizer.label.removeprefix('tuned ')}, {setting}" if setting else optimizer.label
