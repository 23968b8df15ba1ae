"""Percentile tracks: how an optimizer's speed-up is distributed over tasks, one point per checkpoint.

A mean over tasks rises when an optimizer gets faster where it is fast already, and hides a task that starts to
fail; low percentiles show it. VeLO's authors steered by the 10th.

[1] Metz et al. 2022, "VeLO: Training Versatile Learned Optimizers by Scaling Up", Fig. 22 and App. E.4.
    Deviation: besides its five percentiles, the 90th.
"""

from __future__ import annotations

from typing import NamedTuple

from curriculum.evaluation.aggregate import Estimate, Speedups, stratified_bootstrap, task_quantile
from curriculum.evaluation.comparison import TOLERANCE
from curriculum.evaluation.summary import CANDIDATE, EvaluationSummary

PERCENTILES = (5, 10, 25, 50, 75, 90)


class TrackValues(NamedTuple):
    """What a checkpoint's evaluation comes to.

    Attributes:
      percentiles: Over tasks, of the speed-up, by percentile.
      interquartile_mean: With its interval over seeds; its ends are NaN with one seed.
      num_diverged: Tasks on which a seed diverged.
      bounds: Which of them rest on a speed-up at the cap, and so are at least that: percentiles by their numbers,
        the mean and the ends of its interval by the names in `Estimate`.
    """

    percentiles: dict[int, float]
    interquartile_mean: Estimate
    num_diverged: int
    bounds: tuple[str, ...] = ()


def track_values(summary: EvaluationSummary) -> TrackValues:
    """Returns the point of a checkpoint's evaluation; a task on which a seed diverged has a speed-up of 0."""
    speedups = summary.speedups(CANDIDATE)
    percentiles, mean = _percentiles(speedups), stratified_bootstrap(speedups)
    raised = speedups.without_caps()
    raised_percentiles, raised_mean = _percentiles(raised), stratified_bootstrap(raised)
    moved = {name: getattr(raised_mean, name) - getattr(mean, name) for name in ("value", "low", "high")}
    bounds = [str(p) for p in PERCENTILES if raised_percentiles[p] - percentiles[p] > TOLERANCE]
    bounds += [name for name, by in moved.items() if by > TOLERANCE]
    return TrackValues(percentiles, mean, len(summary.diverged(CANDIDATE)), tuple(bounds))


def _percentiles(speedups: Speedups) -> dict[int, float]:
    return {p: float(task_quantile(p / 100)(speedups.tasks)) for p in PERCENTILES}
