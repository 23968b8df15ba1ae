"""Final losses that can be averaged over tasks: 0 is a tuned baseline's best, 1 is where training began.

    (loss − best) / (initial − best)

Runs that diverge, or end above where they began, count as 1. Each split is normalised by its own. Where no setting
of the baseline ever improved on the start (on data that were not trained on, that happens), 0 is whatever did, and
1 what did not.

[1] Metz et al. 2020, 3.2: outer losses are normalised by the best that a baseline achieved, and by the initial one;
    App. E: means and medians over tasks, in training and on other data.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lopt.config import FrozenConfig


class LossScale(NamedTuple):
    """What 0 and 1 are on one task."""

    best: float
    initial: float

    def __call__(self, losses: np.ndarray) -> np.ndarray:
        """Returns normalised losses, at most 1; below 0 is better than the baseline ever was."""
        losses = np.asarray(losses, np.float64)
        if self.best >= self.initial:
            return np.where(losses < self.initial, 0.0, 1.0)
        scaled = (losses - self.best) / (self.initial - self.best)
        return np.where(np.isfinite(scaled), np.minimum(scaled, 1.0), 1.0)


def fit_loss_scale(curves: np.ndarray) -> LossScale:
    """Returns the scale of one task from a tuned baseline's curves.

    Args:
      curves: [settings, seeds, points], the first point before any step.

    Raises:
      ValueError: If no setting has a finite loss at the start.
    """
    mean = np.mean(np.asarray(curves, np.float64), axis=1)
    finite = np.where(np.isfinite(mean), mean, np.inf)
    best, initial = float(finite.min()), float(finite[:, 0].min())
    if not np.isfinite(initial):
        raise ValueError(
            "no setting of the baseline has a finite loss at the start: nothing can be normalised"
        )
    return LossScale(best, initial)


class LossRow(FrozenConfig):
    """One line of the table; means and medians over tasks of the mean over seeds."""

    name: str
    num_trials: int
    train_mean: float
    train_median: float
    held_out_data_mean: float
    held_out_data_median: float
    num_tasks: int
    num_seeds: int


def make_loss_row(name: str, num_trials: int, train: np.ndarray, held_out_data: np.ndarray) -> LossRow:
    """Returns the row of one optimizer.

    Args:
      name: Of the row.
      num_trials: Trainings per task.
      train: Normalised training losses [tasks, seeds].
      held_out_data: Normalised losses [tasks, seeds] on data that were not trained on.
    """
    per_task = [losses.mean(axis=1) for losses in (train, held_out_data)]
    return LossRow(
        name=name,
        num_trials=num_trials,
        train_mean=float(np.mean(per_task[0])),
        train_median=float(np.median(per_task[0])),
        held_out_data_mean=float(np.mean(per_task[1])),
        held_out_data_median=float(np.median(per_task[1])),
        num_tasks=train.shape[0],
        num_seeds=train.shape[1],
    )
