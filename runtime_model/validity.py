"""Whether a configuration runs at all, given what its seconds are predicted to be.

A logistic regression per family on the predicted log seconds and the design's columns: what is refused without
a run, needs too much memory or too long to compile goes with the same sizes. Where all of a family's timings
agree they say nothing about where the limit is: what a model of other timings knows is kept, and without one
the probability is that of the rule of succession.
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
    pairs: Sequence[Sequence[Pair]],
    log_seconds: np.ndarray,
    is_valid: np.ndarray,
    *,
    prior: ValidityModel | None = None,
) -> ValidityModel:
    """Fits the regression to configurations whose log seconds [n] are predicted, not measured; n may be 0.

    Args:
      pairs: Of the n configurations.
      log_seconds: [n].
      is_valid: [n].
      prior: Of another machine's timings; returned where all rows agree.
    """
    positive, count = int(is_valid.sum()), len(is_valid)
    if positive in (0, count):
        return prior or _rule_of_succession(positive, count)
    design = fit_design(pairs)
    time_scale = (float(log_seconds.mean()), max(float(log_seconds.std()), 1e-3))
    regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000)
    regression.fit(_rows(design, time_scale, pairs, log_seconds), is_valid)
    return ValidityModel(
        design=design,
        time_scale=time_scale,
        coefficients=tuple(regression.coef_[0].tolist()),
        intercept=float(regression.intercept_[0]),
    )


def _rule_of_succession(positive: int, count: int) -> ValidityModel:
    odds = (positive + 1) / (count - positive + 1)
    return ValidityModel(
        design=Design(names=(), mean=(), scale=(), constant=()),
        time_scale=(0.0, 1.0),
        coefficients=(0.0,),
        intercept=float(np.log(odds)),
    )


def _rows(
    design: Design, time_scale: tuple[float, float], pairs: Sequence[Sequence[Pair]], log_seconds: np.ndarray
) -> np.ndarray:
    mean, spread = time_scale
    return np.column_stack([3.0 * (log_seconds - mean) / spread, design.matrix(pairs)])
