"""How far a run-time model's predictions of configurations it was not fitted on are off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lopt.config import FrozenConfig


class CalibrationPoint(FrozenConfig):
    """One held-out prediction beside what was measured."""

    config_fingerprint: str
    family: str
    measured_seconds: float | None
    predicted_seconds: float
    base_seconds: float
    """What the kernel regression alone predicts."""
    valid: bool
    valid_probability: float


class CalibrationReport(FrozenConfig):
    """Held-out errors. A number that the timings cannot give (one class only, too few points) is None."""

    num_timings: int
    num_timed: int
    num_valid: int
    num_folds: int
    uses_deep_set: bool
    """False where the kernel regression alone was better, and so is what predicts."""
    median_relative_error: float | None
    p90_relative_error: float | None
    base_median_relative_error: float | None
    """Of the kernel regression alone: what the deep set has to beat."""
    spearman: float | None
    decades_of_spread: float | None
    validity_accuracy: float | None
    validity_auc: float | None
    points: tuple[CalibrationPoint, ...]

    def for_family(self, family: str) -> CalibrationReport:
        """Returns the report over one family's points."""
        points = [point for point in self.points if point.family == family]
        return summarize(points, num_folds=self.num_folds, uses_deep_set=self.uses_deep_set)

    def summary(self) -> str:
        """Returns one line for people."""
        return (
            f"held-out over {self.num_folds} folds, {self.num_timed} timed of {self.num_timings}: "
            f"relative error median {_percent(self.median_relative_error)} (kernel regression alone "
            f"{_percent(self.base_median_relative_error)}), 90th percentile "
            f"{_percent(self.p90_relative_error)}; "
            f"Spearman {_number(self.spearman)}; validity ({self.num_valid} valid, "
            f"{self.num_timings - self.num_valid} not) accuracy {_percent(self.validity_accuracy)}, AUC "
            f"{_number(self.validity_auc)}"
        )


def summarize(
    points: Sequence[CalibrationPoint], *, num_folds: int, uses_deep_set: bool
) -> CalibrationReport:
    """Returns the errors over `points`; relative error is |predicted / measured − 1| over valid ones."""
    timed = [p for p in points if p.valid and p.measured_seconds is not None]
    measured = np.asarray([p.measured_seconds for p in timed], np.float64)
    predicted = np.asarray([p.predicted_seconds for p in timed], np.float64)
    base = np.asarray([p.base_seconds for p in timed], np.float64)
    errors = np.abs(predicted / measured - 1.0)
    valid = np.asarray([p.valid for p in points], bool)
    probability = np.asarray([p.valid_probability for p in points], np.float64)
    return CalibrationReport(
        num_timings=len(points),
        num_timed=len(timed),
        num_valid=int(valid.sum()),
        num_folds=num_folds,
        uses_deep_set=uses_deep_set,
        median_relative_error=_quantile(errors, 0.5),
        p90_relative_error=_quantile(errors, 0.9),
        base_median_relative_error=_quantile(np.abs(base / measured - 1.0), 0.5),
        spearman=spearman(measured, predicted),
        decades_of_spread=float(np.log10(measured.max() / measured.min())) if len(timed) else None,
        validity_accuracy=float(((probability >= 0.5) == valid).mean()) if len(points) else None,
        validity_auc=area_under_curve(valid, probability),
        points=tuple(points),
    )


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Returns the rank correlation, or None with fewer than 3 points or a constant side."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def area_under_curve(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Returns the probability that a positive scores above a negative (ties half), or None without both."""
    positive = int(labels.sum())
    negative = len(labels) - positive
    if not positive or not negative:
        return None
    rank_sum = _ranks(scores)[labels].sum()
    return float((rank_sum - positive * (positive + 1) / 2) / (positive * negative))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns ranks from 1, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_ranks: np.ndarray = (last - (counts - 1) / 2)[inverse]
    return mean_ranks


def _quantile(values: np.ndarray, q: float) -> float | None:
    return float(np.quantile(values, q)) if len(values) else None


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
