"""The few numbers a report computes itself: all else is measured elsewhere and only shown here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, linear_regression, median
from typing import Literal, NamedTuple

from flows.reporting.data import EvaluationReport, TaskReport

Verdict = Literal["win", "even", "loss", "diverged"]


class SpeedupSummary(NamedTuple):
    """The speed-up on one task over its seeds; a diverged seed counts as 0."""

    median: float
    low: float
    high: float
    num_seeds: int
    num_diverged: int
    is_capped: bool

    @property
    def verdict(self) -> Verdict:
        """Win above 1, loss below 1, by the median seed; "diverged" if the median seed did."""
        if self.median == 0.0:
            return "diverged"
        if self.median == 1.0:
            return "even"
        return "win" if self.median > 1.0 else "loss"


class AggregateSpeedup(NamedTuple):
    """Speed-ups over one baseline, aggregated over tasks (each task: median over its seeds)."""

    median: float
    worst: float
    best: float
    num_tasks: int
    num_seeds: int
    num_wins: int
    num_losses: int
    is_capped: bool


def summarize_speedup(per_seed: Sequence[float], *, max_speedup: float) -> SpeedupSummary:
    """Summarises one task's speed-ups.

    Args:
      per_seed: One value per seed; 0 or NaN where the optimizer diverged.
      max_speedup: What the baselines ran long enough to show; a median there means "at least".
    """
    values = [min(value, max_speedup) if value > 0.0 else 0.0 for value in per_seed]
    middle = median(values)
    num_diverged = sum(value == 0.0 for value in values)
    capped = middle >= max_speedup
    return SpeedupSummary(middle, min(values), max(values), len(values), num_diverged, capped)


def task_speedup(
    evaluation: EvaluationReport, task: TaskReport, optimizer: str, baseline: str
) -> SpeedupSummary | None:
    """Returns the summary for one task, or None where this pair was not measured."""
    found = task.speedup(optimizer, baseline)
    if found is None:
        return None
    return summarize_speedup(found.per_seed, max_speedup=evaluation.max_speedup)


def headline_tasks(evaluation: EvaluationReport) -> tuple[TaskReport, ...]:
    """Returns the tasks the headline speaks of: the held-out ones, or all if none was held out."""
    held_out = tuple(task for task in evaluation.tasks if task.held_out)
    return held_out or evaluation.tasks


def aggregate_speedup(
    evaluation: EvaluationReport, tasks: Sequence[TaskReport], optimizer: str, baseline: str
) -> AggregateSpeedup | None:
    """Aggregates over those of `tasks` on which the pair was measured; None if there is none."""
    measured = [task_speedup(evaluation, task, optimizer, baseline) for task in tasks]
    summaries = [summary for summary in measured if summary is not None]
    if not summaries:
        return None
    medians = [summary.median for summary in summaries]
    return AggregateSpeedup(
        median=median(medians),
        worst=min(medians),
        best=max(medians),
        num_tasks=len(medians),
        num_seeds=min(summary.num_seeds for summary in summaries),
        num_wins=sum(summary.verdict == "win" for summary in summaries),
        num_losses=sum(summary.verdict in ("loss", "diverged") for summary in summaries),
        is_capped=median(medians) >= evaluation.max_speedup,
    )


def moving_trend(values: Sequence[float], window: int) -> list[float]:
    """Local straight-line fit: inside, a moving average; at both ends it follows the slope.

    A plain average cut off at the ends would show a falling curve starting too low and ending too high.
    Non-finite values are left out; where none is near, the result is NaN.
    """
    reach = window // 2
    trend = []
    for here in range(len(values)):
        near = [(t - here, v) for t, v in enumerate(values) if abs(t - here) <= reach and math.isfinite(v)]
        if len(near) < 2:
            trend.append(near[0][1] if near else math.nan)
            continue
        _, value_here = linear_regression([t for t, _ in near], [v for _, v in near])
        trend.append(value_here)
    return trend


def smoothing_window(num_values: int) -> int:
    """Returns the odd window for a curve of that length: about an eighth of it, at least 3."""
    return max(3, num_values // 8 | 1)


def finite_mean(values: Sequence[float]) -> float | None:
    """Mean of the finite values, or None if there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return fmean(finite) if finite else None
