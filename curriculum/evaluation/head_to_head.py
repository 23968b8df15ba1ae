"""Head to head: how often one optimizer ends lower than another one, on the same task and with the same seed.

    P(X < Y) = mean over tasks of the share of seeds with which X ends lower; a tie counts half

A speed-up says how much, but needs a third optimizer to measure with, and cannot be seen above its cap. This needs
neither and has no cap; it does not say by how much.

[1] Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS), Sec. 4:
    probability of improvement, an average over tasks, with its bootstrap intervals. Deviation: there each run of X
    is compared with each run of Y, here with the one that has its seed, because a seed may draw the problem itself,
    and with it the scale of the loss.
"""

from __future__ import annotations

import numpy as np

from curriculum.evaluation.aggregate import Speedups, stratified_bootstrap, task_bootstrap
from curriculum.evaluation.speedup import finite_or_inf, seed_mean
from curriculum.evaluation.task_normalizer import seed_draws
from lopt.config import FrozenConfig


class HeadToHeadRow(FrozenConfig):
    """One opponent."""

    name: str
    num_trials: int
    """Trainings per task that it was given, of which the one with the lowest mean loss counts."""
    probability: float
    """That the candidate ends lower: mean over tasks of the share of seeds."""
    over_seeds: tuple[float, float] | None
    """95 % interval: other seeds on the same tasks; None with one seed."""
    over_tasks: tuple[float, float] | None
    """95 % interval: other tasks like these; None with one task."""
    num_won: int
    """Tasks on which the candidate's mean loss over seeds is lower. One that diverged has no mean."""
    num_lost: int
    """Tasks on which it is higher. On the others they are equal, or both diverged."""
    num_tasks: int
    num_seeds: int


def make_head_to_head_row(name: str, ours: np.ndarray, theirs: np.ndarray) -> HeadToHeadRow:
    """Returns how often the candidate ends lower than one opponent.

    Args:
      name: Of the opponent.
      ours: Final losses of the candidate [tasks, seeds]; what is not finite is above everything that is.
      theirs: Of the opponent's trials [tasks, trials, seeds], the seeds being the same.

    Raises:
      ValueError: If tasks or seeds are not the same ones, or there is none.
    """
    tasks, trials, seeds = theirs.shape
    if ours.shape != (tasks, seeds) or not theirs.size:
        raise ValueError(
            f"`ours` [tasks, seeds] and `theirs` [tasks, trials, seeds] must be of the same tasks and seeds, "
            f"got {ours.shape} and {theirs.shape}"
        )
    shares = Speedups(
        tasks=np.asarray([_share_lower(*pair) for pair in zip(ours, theirs, strict=True)]),
        redrawn=np.asarray(
            [
                [_share_lower(own[drawn], other[:, drawn]) for drawn in seed_draws(seeds)]
                for own, other in zip(ours, theirs, strict=True)
            ]
        ),
        caps=np.ones(tasks),
        finite=np.isfinite(ours),
    )
    over_seeds, over_tasks = (
        interval(shares, lambda values: np.mean(values, axis=-1))
        for interval in (stratified_bootstrap, task_bootstrap)
    )
    mine, best = finite_or_inf(seed_mean(ours)), finite_or_inf(seed_mean(theirs)).min(axis=1)
    return HeadToHeadRow(
        name=name,
        num_trials=trials,
        probability=over_seeds.value,
        over_seeds=None if seeds < 2 else (over_seeds.low, over_seeds.high),
        over_tasks=None if tasks < 2 else (over_tasks.low, over_tasks.high),
        num_won=int(np.sum(mine < best)),
        num_lost=int(np.sum(mine > best)),
        num_tasks=tasks,
        num_seeds=seeds,
    )


def _share_lower(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the share of seeds with which `ours` [seeds] is lower than the trial of `theirs` [trials, seeds] that
    is lowest in the mean."""
    best = theirs[np.argmin(finite_or_inf(seed_mean(theirs)))]
    mine, other = finite_or_inf(ours), finite_or_inf(best)
    return float(np.mean((mine < other) + 0.5 * (mine == other)))
