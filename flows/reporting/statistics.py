"""The few numbers a report computes itself: all else is measured elsewhere and only shown here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, linear_regression, median
from typing import Literal, NamedTuple

from flows.reporting.data import EvaluationReport, SpeedupReport, TaskReport
from flows.reporting.formatting import NO_BETTER, times_text

Verdict = Literal["win", "even", "loss", "diverged"]


class SpeedupSummary(NamedTuple):
    """The speed-up on one task, of the mean loss over seeds; the range of that and those with seeds drawn anew."""

    value: float
    low: float
    high: float
    num_seeds: int
    num_diverged: int
    is_capped: bool

    @property
    def verdict(self) -> Verdict:
        """Win above 1, loss below 1; "diverged" if a seed did."""
        if self.num_diverged:
            return "diverged"
        if self.value == 1.0:
            return "even"
        return "win" if self.value > 1.0 else "loss"

    @property
    def text(self) -> str:
        """The value in words."""
        return "diverged" if self.num_diverged else times_text(self.value, at_least=self.is_capped)


class AggregateSpeedup(NamedTuple):
    """Speed-ups over one baseline, aggregated over tasks."""

    median: float
    worst: SpeedupSummary
    best: SpeedupSummary
    num_tasks: int
    num_seeds: int
    num_wins: int
    num_losses: int
    num_zero: int
    """Tasks with a speed-up of 0."""
    num_diverged: int
    """Those of them on which a seed diverged."""
    is_capped: bool
    """Whether the median rests on a task at the cap, and so is at least that."""

    @property
    def text(self) -> str:
        """The median in words."""
        if self.median > 0.0:
            return times_text(self.median, at_least=self.is_capped)
        if self.num_diverged == 0:
            return NO_BETTER
        return "diverged" if self.num_diverged == self.num_zero else f"diverged or {NO_BETTER}"


def summarize_speedup(found: SpeedupReport, *, max_speedup: float) -> SpeedupSummary:
    """Summarises one task's speed-ups.

    Args:
      found: What was measured.
      max_speedup: What the baselines ran long enough to show; a value there means "at least".
    """

    def shown(value: float) -> float:
        return min(value, max_speedup) if value > 0.0 else 0.0

    value, values = shown(found.of_mean), [shown(value) for value in found.redrawn or found.per_seed]
    low, high = min(value, *values), max(value, *values)
    return SpeedupSummary(value, low, high, len(found.per_seed), found.num_diverged, value >= max_speedup)


def task_speedup(
    evaluation: EvaluationReport, task: TaskReport, optimizer: str, baseline: str
) -> SpeedupSummary | None:
    """Returns the summary for one task, or None where this pair was not measured."""
    found = task.speedup(optimizer, baseline)
    return None if found is None else summarize_speedup(found, max_speedup=evaluation.max_speedup)


def headline_tasks(evaluation: EvaluationReport) -> tuple[TaskReport, ...]:
    """Returns the tasks the headline speaks of: the held-out ones, or all if none was held out."""
    held_out = tuple(task for task in evaluation.tasks if task.held_out)
    return held_out or evaluation.tasks


def aggregate_speedup(
    evaluation: EvaluationReport, tasks: Sequence[TaskReport], optimizer: str, baseline: str
) -> AggregateSpeedup | None:
    """Aggregates over those of `tasks` on which the pair was measured; None if there is none."""
    measured = [task_speedup(evaluation, task, optimizer, baseline) for task in tasks]
    summaries = sorted((s for s in measured if s is not None), key=lambda s: (s.value, -s.num_diverged))
    if not summaries:
        return None
    middle = median(s.value for s in summaries)
    return AggregateSpeedup(
        median=middle,
        worst=summaries[0],
        best=summaries[-1],
        num_tasks=len(summaries),
        num_seeds=min(s.num_seeds for s in summaries),
        num_wins=sum(s.verdict == "win" for s in summaries),
        num_losses=sum(s.verdict in ("loss", "diverged") for s in summaries),
        num_zero=sum(s.value == 0.0 for s in summaries),
        num_diverged=sum(s.num_diverged > 0 for s in summaries),
        is_capped=median(math.inf if s.is_capped else s.value for s in summaries) != middle,
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
