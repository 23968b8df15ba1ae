"""How far a run-time model's predictions of configurations it was not fitted on are off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from lopt.config import FrozenConfig

INTERVAL = 0.8
"""Share of measurements that a calibrated interval covers."""
INTERVAL_Z = 1.2815515655446004
"""Standard deviations on either side of a normal distribution's mean within which that share lies."""


class CalibrationPoint(FrozenConfig):
    """One held-out prediction beside what was measured."""

    config_fingerprint: str
    family: str
    measured_seconds: float | None
    """At the machine's usual speed."""
    predicted_seconds: float
    low_seconds: float
    high_seconds: float
    """Ends of the 80 % interval."""
    estimator: str
    by_estimator: Mapping[str, float]
    """Seconds that every estimator predicted, the one that was chosen among them."""
    valid: bool
    valid_probability: float
    valid_by_estimator: Mapping[str, float] = {}
    """The same from every estimator that has one of its own."""

    @property
    def counts(self) -> bool:
        """Whether its relative error is looked at: it runs within the limits."""
        return self.valid and self.measured_seconds is not None


class CalibrationReport(FrozenConfig):
    """Held-out errors. A number that the timings cannot give (one class only, too few points) is None."""

    num_timings: int
    num_timed: int
    num_valid: int
    num_folds: int
    median_relative_error: float | None
    p90_relative_error: float | None
    spearman: float | None
    decades_of_spread: float | None
    interval_coverage: float | None
    """Share of measurements within the 80 % intervals."""
    validity_accuracy: float | None
    validity_auc: float | None
    median_by_estimator: Mapping[str, float]
    """Median relative error of each estimator alone."""
    auc_by_estimator: Mapping[str, float]
    """Validity AUC of each estimator that predicts validity itself."""
    points: tuple[CalibrationPoint, ...]

    @property
    def families(self) -> tuple[str, ...]:
        """The families that occur, sorted."""
        return tuple(sorted({point.family for point in self.points}))

    def for_family(self, family: str) -> CalibrationReport:
        """Returns the report over one family's points."""
        return summarize([p for p in self.points if p.family == family], num_folds=self.num_folds)

    def chosen(self, family: str) -> str:
        """Returns the estimator that most of a family's held-out points were predicted by."""
        names = [point.estimator for point in self.points if point.family == family]
        return max(sorted(set(names)), key=names.count) if names else ""

    def summary(self) -> str:
        """Returns one line for people."""
        others = ", ".join(f"{name} {_percent(error)}" for name, error in self.median_by_estimator.items())
        others_auc = "".join(f", {name} {_number(auc)}" for name, auc in self.auc_by_estimator.items())
        return (
            f"held-out over {self.num_folds} folds, {self.num_timed} timed of {self.num_timings}: "
            f"relative error median {_percent(self.median_relative_error)} ({others}), 90th percentile "
            f"{_percent(self.p90_relative_error)}; Spearman {_number(self.spearman)}; 80 % intervals cover "
            f"{_percent(self.interval_coverage)}; validity ({self.num_valid} valid, "
            f"{self.num_timings - self.num_valid} not) accuracy {_percent(self.validity_accuracy)}, AUC "
            f"{_number(self.validity_auc)}{others_auc}"
        )


def summarize(points: Sequence[CalibrationPoint], *, num_folds: int) -> CalibrationReport:
    """Returns the errors over `points`; relative error is |predicted / measured − 1| over valid ones."""
    timed = [point for point in points if point.counts]
    measured = np.asarray([p.measured_seconds for p in timed], np.float64)
    predicted = np.asarray([p.predicted_seconds for p in timed], np.float64)
    errors = np.abs(predicted / measured - 1.0)
    inside = [p.low_seconds <= m <= p.high_seconds for p, m in zip(timed, measured, strict=True)]
    valid = np.asarray([p.valid for p in points], bool)
    probability = np.asarray([p.valid_probability for p in points], np.float64)
    names = timed[0].by_estimator if timed else {}
    by_estimator = {
        name: float(np.median(np.abs([p.by_estimator[name] for p in timed] / measured - 1.0)))
        for name in names
        if all(name in point.by_estimator for point in timed)
    }
    own = points[0].valid_by_estimator if points else {}
    aucs = {
        name: area_under_curve(valid, np.asarray([p.valid_by_estimator[name] for p in points]))
        for name in own
        if all(name in point.valid_by_estimator for point in points)
    }
    return CalibrationReport(
        num_timings=len(points),
        num_timed=len(timed),
        num_valid=int(valid.sum()),
        num_folds=num_folds,
        median_relative_error=_quantile(errors, 0.5),
        p90_relative_error=_quantile(errors, 0.9),
        spearman=spearman(measured, predicted),
        decades_of_spread=float(np.log10(measured.max() / measured.min())) if len(timed) else None,
        interval_coverage=float(np.mean(inside)) if len(timed) else None,
        validity_accuracy=float(((probability >= 0.5) == valid).mean()) if len(points) else None,
        validity_auc=area_under_curve(valid, probability),
        median_by_estimator=by_estimator,
        auc_by_estimator={name: auc for name, auc in aucs.items() if auc is not None},
        points=tuple(points),
    )


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Returns the rank correlation, or None with fewer than 3 points or a constant side."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)


def area_under_curve(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Returns the probability that a positive scores above a negative (ties half), or None without both."""
    if len(set(labels.tolist())) < 2:
        return None
    return float(roc_auc_score(labels, scores))


def _quantile(values: np.ndarray, q: float) -> float | None:
    return float(np.quantile(values, q)) if len(values) else None


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
