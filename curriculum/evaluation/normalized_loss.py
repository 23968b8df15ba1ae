"""Final losses that can be averaged over tasks: 0 is a tuned baseline's, 1 is where training began.

    (loss − best) / (initial − best), at least −1 and at most 1

The loss is the mean over seeds; `best` is the lowest that one of the baseline's settings has at the same horizon.
Runs that diverge, or end above where they began, count as 1. Below −1, twice the baseline's own fall, a task counts
as −1: where the baseline hardly improves on the start, the quotient has no bound, and one task would be the mean.
Each split is normalised by its own. Where no setting of the baseline improved on the start (on data that were not
trained on, that happens), 0 is whatever did, and 1 what did not.

[1] Metz et al. 2020, 3.2: outer losses are normalised by the best that a baseline achieved, and by the initial one;
    App. E: means and medians over tasks, in training and on test data. Deviations: the floor; `best` is tuned
    Adam's (or the extended normaliser's), where [1] does not say which baseline's it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from curriculum.evaluation.speedup import finite_or_inf, seed_mean
from lopt.config import FrozenConfig

FLOOR = -1.0


class LossScale(NamedTuple):
    """What 0 and 1 are on one task."""

    best: float
    initial: float

    def __call__(self, losses: np.ndarray) -> np.ndarray:
        """Returns normalised losses, from −1 to 1; below 0 is better than the baseline."""
        losses = np.asarray(losses, np.float64)
        if self.best >= self.initial:
            return np.where(np.isfinite(losses) & (losses < self.initial), 0.0, 1.0)
        scaled = (losses - self.best) / (self.initial - self.best)
        return np.where(np.isfinite(scaled), np.clip(scaled, FLOOR, 1.0), 1.0)


def fit_loss_scale(curves: np.ndarray, point: int) -> LossScale:
    """Returns the scale of one task from a tuned baseline's curves.

    Args:
      curves: [settings, seeds, points], the first point before any step.
      point: Index of the horizon; a normaliser's curves run on.

    Raises:
      ValueError: If no setting has a finite loss at the start.
    """
    mean = finite_or_inf(seed_mean(curves, axis=1))
    best, initial = float(mean[:, point].min()), float(mean[:, 0].min())
    if not np.isfinite(initial):
        raise ValueError(
            "no setting of the baseline has a finite loss at the start: nothing can be normalised"
        )
    return LossScale(best, initial)


class LossRow(FrozenConfig):
    """One line of the table; means and medians over tasks."""

    name: str
    num_trials: int
    train_mean: float
    train_median: float
    test_mean: float
    test_median: float
    num_tasks: int
    num_seeds: int


def make_loss_row(
    name: str, num_trials: int, train: np.ndarray, test: np.ndarray, *, num_seeds: int
) -> LossRow:
    """Returns the row of one optimizer.

    Args:
      name: Of the row.
      num_trials: Trainings per task.
      train: Normalised training losses [tasks].
      test: Normalised losses [tasks] on the test split.
      num_seeds: What each is a mean of.
    """
    return LossRow(
        name=name,
        num_trials=num_trials,
        train_mean=float(np.mean(train)),
        train_median=float(np.median(train)),
        test_mean=float(np.mean(test)),
        test_median=float(np.median(test)),
        num_tasks=len(train),
        num_seeds=num_seeds,
    )
