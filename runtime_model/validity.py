"""Whether a configuration runs within the limits, given what its seconds are predicted to be.

A logistic regression per family on the predicted log seconds and the design's columns: "too slow" is the
commonest way to be invalid, and memory goes with the same sizes. Where all of a family's timings agree, the
probability is that of the rule of succession.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from lopt.config import FrozenConfig
from runtime_model.design import Design, fit_design
from runtime_model.features import Pair

INVERSE_PENALTY = 0.3


class ValidityModel(FrozenConfig):
    """A fitted regression: small enough to be stored as JSON."""

    design: Design
    time_scale: tuple[float, float]
    """Mean and standard deviation of the predicted log seconds."""
    coefficients: tuple[float, ...]
    """Of the standardised log seconds, then of the design's columns."""
    intercept: float

    def probability(self, pairs: Sequence[Sequence[Pair]], log_seconds: np.ndarray) -> np.ndarray:
        """Returns the probability [n] of running, from predicted log seconds [n]."""
        rows = _rows(self.design, self.time_scale, pairs, log_seconds)
        logit = rows @ np.asarray(self.coefficients) + self.intercept
        probability: np.ndarray = 1.0 / (1.0 + np.exp(-np.clip(logit, -30, 30)))
        return probability


def fit_validity(
    pairs: Sequence[Sequence[Pair]], log_seconds: np.ndarray, is_valid: np.ndarray
) -> ValidityModel:
    """Fits the regression to configurations whose log seconds [n] are predicted, not measured."""
    design = fit_design(pairs)
    time_scale = (float(log_seconds.mean()), max(float(log_seconds.std()), 1e-3))
    positive, count = int(is_valid.sum()), len(is_valid)
    if positive in (0, count):
        odds = (positive + 1) / (count - positive + 1)
        width = 1 + len(design.names)
        return ValidityModel(
            design=design, time_scale=time_scale, coefficients=(0.0,) * width, intercept=float(np.log(odds))
        )
    regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000)
    regression.fit(_rows(design, time_scale, pairs, log_seconds), is_valid)
    return ValidityModel(
        design=design,
        time_scale=time_scale,
        coefficients=tuple(regression.coef_[0].tolist()),
        intercept=float(regression.intercept_[0]),
    )


def _rows(
    design: Design, time_scale: tuple[float, float], pairs: Sequence[Sequence[Pair]], log_seconds: np.ndarray
) -> np.ndarray:
    mean, spread = time_scale
    return np.column_stack([3.0 * (log_seconds - mean) / spread, design.matrix(pairs)])
