"""The speed-up normaliser: how many times longer tuned Adam needs to reach the same loss.

    envelope(t) = running minimum over time of the minimum over learning rates of the seed-averaged curves
    steps(L)    = the inverse of the envelope by linear interpolation
    speed-up    = steps(final loss) / steps trained

A value of 1 is as fast as the best of the baseline's settings, each point of time choosing its own. Below the
envelope's lowest value the answer is "at least the baseline's whole run", a cap that must be reported with it.

[1] Metz et al. 2022, "VeLO", App. F.1. The paper smooths curves by an exponential average (`ema=0.95` on points
    ten steps apart); with fixed evaluation batches, as here, curves have no evaluation noise to remove.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np


def seed_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Returns the mean over seeds, not finite where a seed is not.

    Added up one after the other, whatever the shape: the baseline's own final loss then is a point of its envelope
    to the last bit, where `np.mean` would sum curves and final losses in different orders.
    """
    seeds = np.moveaxis(np.asarray(values, np.float64), axis, 0)
    total: np.ndarray = reduce(np.add, seeds)
    return total / len(seeds)


class SpeedupNormalizer(NamedTuple):
    """The baseline's envelope: losses[K] falling with steps[K]."""

    steps: np.ndarray
    losses: np.ndarray

    @property
    def max_steps(self) -> float:
        """The baseline's whole run: the largest answer."""
        return float(self.steps[-1])

    def equivalent_steps(self, loss: np.ndarray | float) -> np.ndarray:
        """Returns how many baseline steps reach each loss; 0 for one that is not finite or above the start."""
        loss = np.asarray(loss, np.float64)
        # np.interp wants rising abscissae. Where the running minimum is flat, the first step counts for the flat's
        # own loss, and its last step is where the way to the next lower loss begins.
        steps = np.interp(loss, self.losses[::-1], self.steps[::-1], left=self.max_steps, right=0.0)
        return np.where(np.isfinite(loss), steps, 0.0)

    def speedup(self, loss: np.ndarray | float, steps_trained: int) -> np.ndarray:
        """Returns `equivalent_steps(loss) / steps_trained`."""
        return self.equivalent_steps(loss) / steps_trained


def fit_normalizer(
    step: np.ndarray, curves: np.ndarray, *, ema: float = 0.0, num_points: int | None = None
) -> SpeedupNormalizer:
    """Returns the normaliser of a tuned baseline.

    Args:
      step: [P], rising.
      curves: [num_rates, num_seeds, P]; a rate that diverged may be NaN from some point on.
      ema: Smoothing: x_i = ema·x_{i−1} + (1 − ema)·d_i, without bias correction, after averaging over seeds.
      num_points: Resample onto this many equally spaced steps before the running minimum; None: keep `step`.

    Raises:
      ValueError: If no rate has a finite loss at the first point.
    """
    smooth = seed_mean(curves, axis=1)
    with np.errstate(invalid="ignore"):  # 0 · ∞: what diverged once stays so
        for i in range(1, smooth.shape[1]):
            smooth[:, i] = ema * smooth[:, i - 1] + (1.0 - ema) * smooth[:, i]
    best = finite_or_inf(smooth).min(axis=0)
    if not np.isfinite(best[0]):
        raise ValueError(
            "no setting of the baseline has a finite loss at the start, so nothing can be normalised"
        )
    steps = np.asarray(step, np.float64)
    best = np.where(np.isfinite(best), best, best[0])
    if num_points is not None:
        grid = np.linspace(0.0, steps[-1], num_points)
        best, steps = np.interp(grid, steps, best), grid
    return SpeedupNormalizer(steps, np.minimum.accumulate(best))


def tuned_index(curves: np.ndarray, point: int) -> int:
    """Returns the setting with the lowest seed-averaged loss at `point`; one that diverged never wins.

    Args:
      curves: [num_settings, num_seeds, P].
      point: Index into P: the horizon.
    """
    return int(np.argmin(finite_or_inf(seed_mean(curves[:, :, point]))))


def finite_or_inf(losses: np.ndarray) -> np.ndarray:
    """Returns losses with +∞ for what diverged, so that it is never the lowest."""
    return np.where(np.isfinite(losses), losses, np.inf)
