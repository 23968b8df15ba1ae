"""Draws configurations that are predicted to run, and to stay within a budget of seconds per step.

Both the sampler and the predictor are arguments, so this file knows nothing of either. The accepted
configurations follow the sampler's distribution conditioned on acceptance.

Deviations from the release of [1]: the validity model's own output decides validity, against a threshold (the
release tests the time model's output for being non-zero); candidates are predicted in batches; the budget's
probabilities must sum to 1 (the paper prints ones that sum to 1.1).

[1] Metz et al. 2022, VeLO (arXiv:2211.09760), App. C.4 and C.5
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from pydantic import model_validator

from lopt.config import FrozenConfig
from runtime_model.prediction import Prediction

ConfigT = TypeVar("ConfigT")
SAFETY_QUANTILE = 0.9
"""A task is accepted if it stays within the budget with this probability, by the model's own uncertainty."""


class BudgetUnreachableError(RuntimeError):
    """No sampled configuration was predicted to run within the budget."""


class BudgetDistribution(Protocol):
    """Anything that budgets can be drawn from."""

    def sample(self, rng: np.random.Generator) -> float:
        """Returns a budget in seconds per step."""
        ...


class ProblemSizeThresholds(FrozenConfig):
    """A distribution over budgets: `seconds[i]` per inner step with `probabilities[i]`."""

    seconds: tuple[float, ...]
    probabilities: tuple[float, ...]

    @model_validator(mode="after")
    def _check(self) -> ProblemSizeThresholds:
        if not self.seconds or len(self.seconds) != len(self.probabilities):
            raise ValueError(
                "`seconds` and `probabilities` must have the same length, at least 1, got "
                f"{len(self.seconds)} and {len(self.probabilities)}. Give one probability per threshold."
            )
        if min(self.seconds) <= 0 or min(self.probabilities) < 0:
            raise ValueError(
                f"`seconds` must be positive and `probabilities` not negative, got {self.seconds=} and "
                f"{self.probabilities=}."
            )
        total = math.fsum(self.probabilities)
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(
                f"`probabilities` must sum to 1, got {self.probabilities} = {total:g}. To keep their ratios, "
                "use ProblemSizeThresholds.normalized(seconds=…, probabilities=…)."
            )
        return self

    @classmethod
    def normalized(cls, *, seconds: Sequence[float], probabilities: Sequence[float]) -> ProblemSizeThresholds:
        """Returns the thresholds with `probabilities` divided by their sum."""
        total = math.fsum(probabilities)
        if not total > 0:
            raise ValueError(f"`probabilities` must have a positive sum, got {tuple(probabilities)}.")
        return cls(seconds=tuple(seconds), probabilities=tuple(p / total for p in probabilities))

    def sample(self, rng: np.random.Generator) -> float:
        """Returns one of `seconds`."""
        weights = np.asarray(self.probabilities)
        return float(rng.choice(np.asarray(self.seconds), p=weights / weights.sum()))


def rejection_sample(
    sample: Callable[[np.random.Generator], ConfigT],
    predict: Callable[[list[ConfigT]], Prediction],
    rng: np.random.Generator,
    *,
    budget_seconds: float | BudgetDistribution,
    min_valid_probability: float = 0.5,
    safety_quantile: float = SAFETY_QUANTILE,
    max_tries: int = 4096,
    batch: int = 64,
) -> ConfigT:
    """Returns the first sampled configuration that is predicted valid and within the budget.

    Args:
      sample: Draws a configuration.
      predict: Predicts many at once; `RuntimeModel.predict` is one.
      rng: Source of every draw. Same state, same answer for the same `batch`; advanced by whole batches.
      budget_seconds: Seconds per inner step, or what to draw that from (once).
      min_valid_probability: Least predicted probability of running at all.
      safety_quantile: Least probability of staying within the budget: 0.5 compares it with the median.
      max_tries: Configurations to look at before giving up.
      batch: Configurations predicted together.

    Raises:
      BudgetUnreachableError: If none of `max_tries` is accepted; says how near they came.
    """
    _check_quantile(safety_quantile)
    if max_tries < 1 or batch < 1:
        raise ValueError(f"`max_tries` and `batch` must be at least 1, got {max_tries=} and {batch=}.")
    budget = budget_seconds if isinstance(budget_seconds, int | float) else budget_seconds.sample(rng)
    seconds, valid = np.zeros(0), np.zeros(0)
    while len(seconds) < max_tries:
        configs = [sample(rng) for _ in range(min(batch, max_tries - len(seconds)))]
        prediction = predict(configs)
        accepted = accepts(
            prediction, budget, min_valid_probability=min_valid_probability, safety_quantile=safety_quantile
        )
        if accepted.any():
            return configs[int(np.argmax(accepted))]
        seconds = np.concatenate([seconds, prediction.upper(safety_quantile)])
        valid = np.concatenate([valid, prediction.valid_probability])
    raise BudgetUnreachableError(_why_not(seconds, valid, budget, min_valid_probability, safety_quantile))


def accepts(
    prediction: Prediction, budget: float, *, min_valid_probability: float, safety_quantile: float
) -> np.ndarray:
    """Returns [n]: which configurations are likely to run, and to stay within the budget in seconds per step."""
    in_time = prediction.upper(safety_quantile) <= budget
    accepted: np.ndarray = in_time & (prediction.valid_probability >= min_valid_probability)
    return accepted


def _check_quantile(quantile: float) -> None:
    if not 0.0 < quantile < 1.0:
        raise ValueError(f"`safety_quantile` must lie between 0 and 1, got {quantile}. 0.9 is usual.")


def _why_not(
    seconds: np.ndarray, valid: np.ndarray, budget: float, min_valid_probability: float, quantile: float
) -> str:
    in_time, runs = seconds <= budget, valid >= min_valid_probability
    fastest = f"{seconds[runs].min():.3g} s" if runs.any() else "none"
    return (
        f"`budget_seconds` must be reachable, got {budget:.3g} s per step: accepted 0 of {len(seconds)} "
        f"sampled configurations, an acceptance rate of 0 ({in_time.mean():.1%} stay within it with probability "
        f"{quantile:g}, {runs.mean():.1%} are valid with probability ≥ {min_valid_probability:g}, none is both). "
        f"Fastest valid seen, at that probability: {fastest}; fastest of all: {seconds.min():.3g} s. Raise the "
        "budget above that, add a smaller task family, lower `safety_quantile`, or raise `max_tries`."
    )
