"""What batch-size and model-size scaling share: final losses along an axis, baselines tuned anew at every point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from curriculum.probes.base import Role, Series, spread_series
from curriculum.probes.training import Learner, Trainer, final_losses
from lopt.types import PRNGKey
from task_generator.task_config import TaskConfig


class Point(NamedTuple):
    """One place on the axis."""

    x: float
    task: TaskConfig
    horizon: int
    num_eval_batches: int


def scaling_series(points: Sequence[Point], learners: Sequence[Learner], keys: PRNGKey) -> tuple[Series, ...]:
    """Returns each learner's final training loss along the axis; the first learner is the subject.

    A baseline shows, at every point, the learning rate with the lowest mean loss there.
    """
    series = []
    for index, learner in enumerate(learners):
        losses = []
        for point in points:
            trainer = Trainer(
                learner, num_points=2, splits=("train",), num_eval_batches=point.num_eval_batches
            )
            losses.append(final_losses(trainer(point.task.build(), keys, horizon=point.horizon))[0])
        role: Role = "baseline" if index else "subject"
        rates = f", best of {len(learner.rates)} rates" if learner.rates else ""
        series.append(
            spread_series(
                f"{learner.name}{rates}",
                [point.x for point in points],
                np.stack(losses, axis=1),
                role=role,
                marked=True,
            )
        )
    return tuple(series)


def wins(series: Sequence[Series]) -> int:
    """Returns at how many points the first series lies below all others."""
    rest = np.min([other.y for other in series[1:]], axis=0)
    return int(np.sum(np.asarray(series[0].y) < rest))
