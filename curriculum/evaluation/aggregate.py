"""From speed-ups on many tasks to one number with an interval: what an evaluation says as a whole.

The interquartile mean is the mean of the middle half of the tasks: it moves with most of them, where a median moves
with one and a mean with the luckiest. Two intervals are given, because they answer two questions:

- `stratified_bootstrap` draws seeds anew within every task: would other seeds on *these* tasks say the same?
- `task_bootstrap` draws tasks anew, with their seeds: would other tasks *like these* say the same? It is the wider
  one, and the one to quote when the claim is about tasks in general.

One seed says nothing of others, nor one task: there is no interval then.

With seeds drawn anew the baseline's envelope, the lowest of many noisy curves, is of fewer different seeds, and so
lower: nearly all redrawn speed-ups are below the one of all seeds, and their percentiles would hold the truth far
too rarely. The interval over seeds is therefore moved by what the value is above their median.

[1] Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS), Sec. 4:
    interquartile mean, stratified bootstrap with percentile intervals, performance profiles. Deviations: of tasks,
    not of runs, because what is normalised is a task's mean loss (`curriculum.evaluation.task_normalizer`); and the
    interval over seeds is centred, as above.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import trim_mean

NUM_RESAMPLES = 2_000
CONFIDENCE = 0.95
Statistic = Callable[[np.ndarray], np.ndarray]
"""[..., tasks] → [...]."""


class Speedups(NamedTuple):
    """One optimizer's speed-ups on T tasks, and what is known of their noise and their bounds."""

    tasks: np.ndarray  # [T], of the mean loss over seeds
    redrawn: np.ndarray  # [T, R], with seeds drawn anew, equally likely; R = 0 where there is one seed
    caps: np.ndarray  # [T], the largest that could be seen
    finite: np.ndarray  # [T, S], whether the run ended with a finite loss

    @property
    def is_capped(self) -> np.ndarray:
        """On which tasks the value is a bound: [T]."""
        return self.tasks >= self.caps

    def at(self, tasks: np.ndarray | list[int]) -> Speedups:
        """Returns those on some tasks, by their numbers."""
        return Speedups(*(values[tasks] for values in self))

    def times(self, factors: np.ndarray) -> Speedups:
        """Returns them multiplied by a number for each task, bounds included."""
        each = factors[:, None]
        return Speedups(self.tasks * factors, self.redrawn * each, self.caps * factors, self.finite)

    def without_caps(self, raised: float = 1e9) -> Speedups:
        """Returns them with what is at a bound far above it: a statistic that moves rests on a bound."""
        return self.raised_on(np.ones(len(self.tasks), bool), raised)

    def raised_on(self, tasks: np.ndarray, raised: float) -> Speedups:
        """Returns them with what is at a bound, and the bound, at another value, on some tasks (booleans [T])."""
        at_cap = self.redrawn >= self.caps[:, None]
        return self._replace(
            tasks=np.where(tasks & self.is_capped, raised, self.tasks),
            redrawn=np.where(tasks[:, None] & at_cap, raised, self.redrawn),
            caps=np.where(tasks, raised, self.caps),
        )


class Estimate(NamedTuple):
    """A statistic with its interval, and what it is of. Ends are NaN where nothing can be said of them."""

    value: float
    low: float
    high: float
    num_tasks: int
    num_seeds: int


def interquartile_mean(speedups: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half of all tasks: [..., tasks] → [...].

    Of n tasks, ⌊n/4⌋ are left out at either end; fewer than four are averaged whole.
    """
    mean: np.ndarray = trim_mean(speedups, 0.25, axis=-1)
    return mean


def task_quantile(quantile: float) -> Statistic:
    """Returns the statistic "that quantile over tasks"."""

    def statistic(speedups: np.ndarray) -> np.ndarray:
        value: np.ndarray = np.quantile(speedups, quantile, axis=-1)
        return value

    return statistic


def share_at_least(threshold: float) -> Statistic:
    """Returns the statistic "share of tasks on which it is at least `threshold`"."""

    def statistic(speedups: np.ndarray) -> np.ndarray:
        share: np.ndarray = np.mean(speedups >= threshold, axis=-1)
        return share

    return statistic


def stratified_bootstrap(
    speedups: Speedups,
    statistic: Statistic = interquartile_mean,
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Returns the statistic with the interval that drawing every task's seeds anew gives, the baseline's with them.

    Moved so that the middle of what is drawn is at the value, and within 0 and the statistic of the caps.

    Args:
      speedups: Finite; larger is better.
      statistic: Of what; larger where a speed-up is.
      num_resamples: Bootstrap samples.
      confidence: Of the percentile interval.
      seed: Of the bootstrap.

    Raises:
      ValueError: If there is no task, or a value that is not finite.
    """
    redrawn = speedups.redrawn
    if not redrawn.size:
        return _estimate(speedups, None, statistic, confidence)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(redrawn.shape[1], size=(num_resamples, len(redrawn)))
    drawn = redrawn[np.arange(len(redrawn)), chosen]
    return _estimate(speedups, drawn, statistic, confidence, is_centred=True)


def task_bootstrap(
    speedups: Speedups,
    statistic: Statistic = interquartile_mean,
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Returns the statistic with the interval that drawing tasks anew gives; arguments as above."""
    tasks = speedups.tasks
    if len(tasks) < 2:
        return _estimate(speedups, None, statistic, confidence)
    chosen = np.random.default_rng(seed).integers(len(tasks), size=(num_resamples, len(tasks)))
    return _estimate(speedups, tasks[chosen], statistic, confidence)


def _estimate(
    speedups: Speedups,
    drawn: np.ndarray | None,
    statistic: Statistic,
    confidence: float,
    *,
    is_centred: bool = False,
) -> Estimate:
    _check(speedups)
    value, low, high = float(statistic(speedups.tasks)), math.nan, math.nan
    if drawn is not None:
        tail, found = (1.0 - confidence) / 2.0, statistic(drawn)
        ends = np.quantile(found, [tail, 1.0 - tail])
        if is_centred:
            ends = np.clip(ends + value - np.median(found), 0.0, statistic(speedups.caps))
        low, high = map(float, ends)
    return Estimate(value, low, high, *speedups.finite.shape)


def _check(speedups: Speedups) -> None:
    tasks, redrawn = speedups.tasks, speedups.redrawn
    is_finite = np.all(np.isfinite(tasks)) and np.all(np.isfinite(redrawn))
    if tasks.ndim != 1 or tasks.size == 0 or not is_finite:
        raise ValueError(
            f"`speedups` must be finite and of at least one task, got shape {tasks.shape}"
            f"{'' if is_finite else ' with values that are not finite'}. Count a task on which a run diverged as a "
            "speed-up of 0"
        )
