"""Tables of optimizers over a set of tasks: one trial each, and the best of many.

`TrialLosses` is what every row is made from: the final losses of every trial of every optimizer on every task, and
what they are compared with. A row with one trial uses one setting for all tasks, as a person without time to tune
would; a row with n trials uses, per task, the one with the lowest final loss of n, as a person would who trains n
times and keeps the best.

[1] Metz et al. 2022, "VeLO", App. G.12, Tables 1-4: columns, clips, and which single trials are shown.
[2] Agarwal et al. 2021: interquartile mean and its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from curriculum.evaluation.aggregate import (
    Speedups,
    interquartile_mean,
    share_at_least,
    stratified_bootstrap,
    task_bootstrap,
    task_quantile,
)
from curriculum.evaluation.task_normalizer import TaskNormalizer, best_speedups
from lopt.baselines import BASELINES
from lopt.config import FrozenConfig

MAX_SPEEDUP, MAX_COST = 30.0, 10.0
"""Per-task clips of the two means in [1]."""
QUANTILES = (0.05, 0.10, 0.25, 0.50, 0.75)
TWICE = 2.0
TOLERANCE = 1e-5
"""Of a number that speed-ups far above the cap have no part in: of those, rounding leaves a ten-millionth."""


class TrialLosses(NamedTuple):
    """One optimizer with all of its trials on all tasks."""

    name: str
    label: str
    settings: tuple[str, ...]
    """What each trial is called; "" where nothing was chosen."""
    losses: np.ndarray  # [tasks, trials, seeds], at the horizon
    normalizers: tuple[TaskNormalizer, ...]
    """One per task."""

    @property
    def num_trials(self) -> int:
        """How many there are."""
        return len(self.settings)

    @property
    def is_list(self) -> bool:
        """Whether its trials are ordered, the most useful first: a list is used from its head."""
        return self.name in BASELINES and BASELINES[self.name].search_space.kind == "list"

    def trial_name(self, number: int) -> str:
        """Returns what a row of one trial is called."""
        setting = self.settings[number]
        return f"{self.label.removeprefix('tuned ')}, {setting}" if setting else self.label

    def best_name(self, num_trials: int) -> str:
        """Returns what a row of the best of so many trials is called."""
        return f"{self.label}, best of {num_trials}" if num_trials > 1 else self.label

    def per_trial(self) -> np.ndarray:
        """Returns every trial's speed-up on every task: [tasks, trials]."""
        pairs = zip(self.normalizers, self.losses, strict=True)
        return np.stack([normalizer.speedup(losses) for normalizer, losses in pairs])

    def trial(self, number: int) -> Speedups:
        """Returns the speed-ups of one trial, the same on all tasks."""
        return best_speedups(self.normalizers, self.losses[:, number : number + 1])

    def best_in_the_mean(self) -> int:
        """Returns the trial with the highest mean speed-up over tasks, each clipped: the one setting to choose."""
        return int(np.argmax(np.minimum(self.per_trial(), MAX_SPEEDUP).mean(axis=0)))

    def best(self, num_trials: int | None = None) -> Speedups:
        """Returns, per task, those of the trial with the lowest mean loss of the first `num_trials`."""
        return best_speedups(self.normalizers, self.losses[:, :num_trials])


class Row(FrozenConfig):
    """One line of a table, over tasks; n is beside every number."""

    name: str
    num_trials: int
    mean_speedup: float
    """Mean over tasks, each clipped at 30."""
    mean_cost: float
    """Mean over tasks of the reciprocal, each clipped at 10."""
    quantiles: tuple[float, ...]
    iqm: float
    iqm_over_seeds: tuple[float, float] | None
    """95 % interval: other seeds, the baseline's too, on the same tasks, each speed-up as far as it could be seen;
    None with one seed."""
    iqm_over_tasks: tuple[float, float] | None
    """95 % interval: other tasks like these; None with one task."""
    share_twice: float | None
    """Share of tasks with a speed-up of at least 2; None where that could not have been seen."""
    bounds: tuple[str, ...]
    """Names of the statistics that rest on a speed-up at its cap (`STATISTICS`): the true value is at least that,
    for a cost at most."""
    num_capped: int
    """Tasks on which the speed-up is the largest that could be seen."""
    num_no_better: int
    """Tasks on which every run ended with a finite loss, and the mean no lower than at the start."""
    num_diverged: int
    """Runs that ended with a loss that is not finite; the speed-up on their tasks is 0."""
    num_tasks: int
    num_seeds: int


def quantile_name(quantile: float) -> str:
    """Returns what a quantile is called in `Row.bounds`."""
    return f"quantile {quantile:g}"


STATISTICS = (
    "mean_speedup",
    "mean_cost",
    *(quantile_name(quantile) for quantile in QUANTILES),
    "iqm",
    "iqm_over_seeds low",
    "iqm_over_seeds high",
    "iqm_over_tasks low",
    "iqm_over_tasks high",
    "share_twice",
)


def make_row(name: str, num_trials: int, speedups: Speedups) -> Row:
    """Returns the row of one optimizer.

    Args:
      name: Of the row.
      num_trials: Trainings per task that it needs.
      speedups: Of at least one task.
    """
    values, raised = _statistics(speedups), _statistics(speedups.without_caps())
    if not np.any(speedups.caps >= TWICE):  # could not have been seen: neither a number nor a bound
        values["share_twice"] = np.nan
    num_tasks, num_seeds = speedups.finite.shape
    return Row(
        name=name,
        num_trials=num_trials,
        mean_speedup=values["mean_speedup"],
        mean_cost=values["mean_cost"],
        quantiles=tuple(values[quantile_name(q)] for q in QUANTILES),
        iqm=values["iqm"],
        iqm_over_seeds=_interval(values, "iqm_over_seeds"),
        iqm_over_tasks=_interval(values, "iqm_over_tasks"),
        share_twice=None if np.isnan(values["share_twice"]) else values["share_twice"],
        bounds=tuple(each for each in STATISTICS if _is_bound(each, values[each], raised[each])),
        num_capped=int(np.sum(speedups.is_capped)),
        num_no_better=int(np.sum((speedups.tasks == 0.0) & speedups.finite.all(axis=1))),
        num_diverged=int(np.sum(~speedups.finite)),
        num_tasks=num_tasks,
        num_seeds=num_seeds,
    )


def _statistics(speedups: Speedups) -> dict[str, float]:
    tasks = speedups.tasks
    over_seeds, over_tasks = stratified_bootstrap(speedups), task_bootstrap(speedups)
    with np.errstate(divide="ignore"):
        cost = np.minimum(1.0 / tasks, MAX_COST)
    values = (
        np.minimum(tasks, MAX_SPEEDUP).mean(),
        cost.mean(),
        *(task_quantile(quantile)(tasks) for quantile in QUANTILES),
        interquartile_mean(tasks),
        over_seeds.low,
        over_seeds.high,
        over_tasks.low,
        over_tasks.high,
        share_at_least(TWICE)(tasks),
    )
    return {name: float(value) for name, value in zip(STATISTICS, values, strict=True)}


def _interval(values: dict[str, float], name: str) -> tuple[float, float] | None:
    ends = (values[f"{name} low"], values[f"{name} high"])
    return None if np.isnan(ends[0]) else ends


def _is_bound(name: str, value: float, raised: float) -> bool:
    """Whether more could be true. An end that is moved by what rests on the cap could be less: it is no bound."""
    more = value - raised if name == "mean_cost" else raised - value
    return bool(more > TOLERANCE)


def single_trial_rows(optimizer: TrialLosses) -> list[Row]:
    """Returns the rows that need one training per task (Tables 1 and 3 of [1]).

    Of several trials two are shown: the best in the mean over tasks and the best in the median; where that is one,
    the second best in the median as well. Of a list it is the first.
    """
    if optimizer.num_trials == 1 or optimizer.is_list:
        return [make_row(optimizer.trial_name(0), 1, optimizer.trial(0))]
    by_mean = optimizer.best_in_the_mean()
    by_median = np.argsort(-np.median(optimizer.per_trial(), axis=0), kind="stable")
    second = next(int(trial) for trial in by_median if trial != by_mean)
    return [make_row(optimizer.trial_name(i), 1, optimizer.trial(i)) for i in (by_mean, second)]


def best_of_rows(optimizers: Sequence[TrialLosses]) -> list[Row]:
    """Returns the rows that need several trainings per task (Tables 2 and 4 of [1]), one per optimizer."""
    rows = []
    for optimizer in optimizers:
        total = optimizer.num_trials
        counts = sorted({5, 10, total}) if optimizer.is_list else [total]
        rows += [make_row(optimizer.best_name(n), n, optimizer.best(n)) for n in counts if n <= total]
    return rows


def best_of_all(name: str, optimizers: Sequence[TrialLosses]) -> Row:
    """Returns the row of whichever of `optimizers`, with whichever of its trials, ends lowest on each task.

    Raises:
      ValueError: If there is none.
    """
    if not optimizers:
        raise ValueError(f"`optimizers` of the row {name!r} must name at least one, got none")
    losses = np.concatenate([optimizer.losses for optimizer in optimizers], axis=1)
    return make_row(name, losses.shape[1], best_speedups(optimizers[0].normalizers, losses))
