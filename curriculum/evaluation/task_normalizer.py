"""One task's speed-ups: of the mean loss over seeds, of each seed by itself, and with other seeds.

Losses are averaged over seeds, then normalised, as in [1]: a seed may draw the problem itself, with a loss
scale of its own, and the way from a loss to a number of steps is anything but straight. A seed's loss therefore
is never compared with an envelope of averages. Where seeds are looked at one by one, each has the baseline's
envelope of the same seed, with the settings that are best on average: chosen for the one seed, the baseline
would be luckier than what it is compared with. Where seeds are drawn anew, the optimizer's and the baseline's
are drawn together, and everything that follows from them is done again: averages, envelope, the choice of the
best trial.

Of S seeds S − 1 are drawn, with replacement: the mean of S draws would vary by (S − 1) / S of what the mean of S
seeds does [2], a third too little with three. Up to four seeds all such draws are taken.

[1] Metz et al. 2022, "VeLO", App. F.1.
[2] Rao & Wu 1988, "Resampling Inference With Complex Survey Data", J. Am. Stat. Assoc. 83, Sec. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from curriculum.evaluation.aggregate import Speedups
from curriculum.evaluation.speedup import SpeedupNormalizer, finite_or_inf, fit_normalizer, seed_mean

MAX_DRAWS = 100


class TaskNormalizer(NamedTuple):
    """The baseline of one task; `draws` are [R, S − 1] seeds, without rows where there is one seed."""

    horizon: int
    of_mean: SpeedupNormalizer
    of_seed: tuple[SpeedupNormalizer, ...]
    draws: np.ndarray
    of_draw: tuple[SpeedupNormalizer, ...]

    @property
    def cap(self) -> float:
        """The largest speed-up that can be seen."""
        return self.of_mean.max_steps / self.horizon

    def speedup(self, losses: np.ndarray) -> np.ndarray:
        """Returns the speed-up of the mean loss: [..., seeds] → [...]; 0 where a seed is not finite."""
        return self.of_mean.speedup(seed_mean(losses), self.horizon)

    def by_seed(self, losses: np.ndarray) -> np.ndarray:
        """Returns each seed's speed-up over the baseline with that seed, tuned on all: [seeds] → [seeds]."""
        pairs = zip(self.of_seed, losses, strict=True)
        return np.asarray([float(own.speedup(loss, self.horizon)) for own, loss in pairs])

    def redrawn(self, losses: np.ndarray) -> np.ndarray:
        """Returns the speed-up with each draw, of the trial that is lowest then: [trials, seeds] → [R]."""
        pairs = zip(self.draws, self.of_draw, strict=True)
        lowest = ((own, finite_or_inf(seed_mean(losses[:, drawn])).min()) for drawn, own in pairs)
        return np.asarray([float(own.speedup(loss, self.horizon)) for own, loss in lowest])


def fit_task_normalizer(step: np.ndarray, curves: np.ndarray, horizon: int) -> TaskNormalizer:
    """Returns the normaliser of a task.

    Args:
      step: [P], rising.
      curves: [num_settings, num_seeds, P] of the baseline.
      horizon: Steps that the compared optimizers are given.
    """
    num_seeds = curves.shape[1]
    draws = seed_draws(num_seeds)
    tuned = tuned_on_all_seeds(curves)
    return TaskNormalizer(
        horizon=horizon,
        of_mean=fit_normalizer(step, curves),
        of_seed=tuple(fit_normalizer(step, own[None, None]) for own in tuned),
        draws=draws,
        of_draw=tuple(fit_normalizer(step, curves[:, drawn]) for drawn in draws),
    )


def tuned_on_all_seeds(curves: np.ndarray) -> np.ndarray:
    """Returns each seed's losses with the setting that is best on average at each point: → [seeds, P]."""
    best = np.argmin(finite_or_inf(seed_mean(curves, axis=1)), axis=0)
    tuned: np.ndarray = np.take_along_axis(curves, best[None, None], axis=0)[0]
    return tuned


def seed_draws(num_seeds: int) -> np.ndarray:
    """Returns equally likely draws of S − 1 of S seeds, with replacement: [R, S − 1], the same for the same S.

    All of them if there are at most `MAX_DRAWS`, else as many at random; none of a single seed.
    """
    if num_seeds < 2:
        return np.zeros((0, 0), int)
    size = num_seeds - 1
    if num_seeds**size <= MAX_DRAWS:
        return np.asarray(list(product(range(num_seeds), repeat=size)))
    return np.random.default_rng(0).integers(num_seeds, size=(MAX_DRAWS, size))


def best_speedups(normalizers: Sequence[TaskNormalizer], losses: np.ndarray) -> Speedups:
    """Returns the speed-ups on every task of the trial with the lowest mean loss over seeds.

    Args:
      normalizers: One per task.
      losses: Final losses [tasks, trials, seeds].
    """
    best = np.argmin(finite_or_inf(seed_mean(losses)), axis=1)
    chosen = losses[np.arange(len(losses)), best]
    pairs = list(zip(normalizers, losses, chosen, strict=True))
    return Speedups(
        tasks=np.asarray([float(normalizer.speedup(final)) for normalizer, _, final in pairs]),
        redrawn=np.stack([normalizer.redrawn(trials) for normalizer, trials, _ in pairs]),
        caps=np.asarray([normalizer.cap for normalizer in normalizers]),
        finite=np.isfinite(chosen),
    )
