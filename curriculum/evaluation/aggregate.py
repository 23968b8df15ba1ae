"""From speed-ups on many tasks to one number with an interval: what an evaluation says as a whole.

The interquartile mean is the mean of the middle half of all runs: it moves with most of them, where a median moves
with one and a mean with the luckiest. Two intervals are given, because they answer two questions:

- `stratified_bootstrap` draws seeds anew within every task: would other seeds on *these* tasks say the same?
- `task_bootstrap` draws tasks anew, with their seeds: would other tasks *like these* say the same? It is the wider
  one, and the one to quote when the claim is about tasks in general.

[1] Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS), Sec. 4:
    interquartile mean, stratified bootstrap with percentile intervals, performance profiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import trim_mean

NUM_RESAMPLES = 2_000
CONFIDENCE = 0.95
Statistic = Callable[[np.ndarray], np.ndarray]
"""[..., tasks, seeds] → [...]."""


class Estimate(NamedTuple):
    """A statistic with its interval, and what it is of."""

    value: float
    low: float
    high: float
    num_tasks: int
    num_seeds: int


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half of all runs: [..., tasks, seeds] → [...].

    Of n runs, ⌊n/4⌋ are left out at either end; fewer than four are averaged whole.
    """
    runs = scores.reshape(*scores.shape[:-2], -1)
    mean: np.ndarray = trim_mean(runs, 0.25, axis=-1)
    return mean


def task_quantile(quantile: float) -> Statistic:
    """Returns the statistic "that quantile, over tasks, of the mean over seeds"."""

    def statistic(scores: np.ndarray) -> np.ndarray:
        value: np.ndarray = np.quantile(scores.mean(axis=-1), quantile, axis=-1)
        return value

    return statistic


def share_at_least(threshold: float) -> Statistic:
    """Returns the statistic "share of tasks whose mean over seeds is at least `threshold`" (LHOPT, Sec. 4.1)."""

    def statistic(scores: np.ndarray) -> np.ndarray:
        share: np.ndarray = np.mean(scores.mean(axis=-1) >= threshold, axis=-1)
        return share

    return statistic


def stratified_bootstrap(
    scores: np.ndarray,
    statistic: Statistic = interquartile_mean,
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Returns the statistic with the interval that drawing every task's seeds anew gives.

    Args:
      scores: [tasks, seeds], finite; larger is better.
      statistic: Of what.
      num_resamples: Bootstrap samples.
      confidence: Of the percentile interval.
      seed: Of the bootstrap.

    Raises:
      ValueError: If there is no run, or one that is not finite.
    """
    scores = _checked(scores)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(scores.shape[1], size=(num_resamples, *scores.shape))
    return _estimate(scores, np.take_along_axis(scores[None], chosen, axis=2), statistic, confidence)


def task_bootstrap(
    scores: np.ndarray,
    statistic: Statistic = interquartile_mean,
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Returns the statistic with the interval that drawing tasks anew gives; arguments as above."""
    scores = _checked(scores)
    chosen = np.random.default_rng(seed).integers(len(scores), size=(num_resamples, len(scores)))
    return _estimate(scores, scores[chosen], statistic, confidence)


def _estimate(scores: np.ndarray, drawn: np.ndarray, statistic: Statistic, confidence: float) -> Estimate:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(statistic(drawn), [tail, 1.0 - tail])
    return Estimate(float(statistic(scores)), float(low), float(high), *scores.shape)


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.size == 0 or not np.all(np.isfinite(scores)):
        raise ValueError(
            f"`scores` must be finite and [tasks, seeds] with at least one run, got shape {scores.shape}"
            f"{'' if np.all(np.isfinite(scores)) else ' with values that are not finite'}. Count a run that "
            "diverged as a speed-up of 0"
        )
    return scores
