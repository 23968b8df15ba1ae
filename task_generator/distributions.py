"""Priors over static configuration values, drawn on the host.

Each prior is a value: it can be printed, compared, and asked whether it could have drawn something
(`contains`), which is how a held-out evaluation task is shown to be held out.

Deviation from the released code: its integer draws truncate `exp(U(ln low, ln high))`, so the upper bound is
never drawn; here an integer range includes both ends, as the paper's text says.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, Self

import numpy as np
from pydantic import Field, model_validator

from lopt.config import FrozenConfig

Value = bool | float | int | str | None


class Distribution(Protocol):
    """What a prior can do."""

    def sample(self, rng: np.random.Generator) -> Any:
        """Returns one draw, a plain Python value."""
        ...

    def contains(self, value: Any) -> bool:
        """Returns whether `sample` could return `value`."""
        ...


class Uniform(FrozenConfig):
    """A real number, uniform on [low, high]."""

    low: float
    high: float

    @model_validator(mode="after")
    def _check(self) -> Self:
        return _ordered(self)

    def sample(self, rng: np.random.Generator) -> float:
        """Returns one draw."""
        return float(rng.uniform(self.low, self.high))

    def contains(self, value: Any) -> bool:
        """Returns whether `value` is a number in the range."""
        return _is_number(value) and self.low <= value <= self.high


class LogUniform(Uniform):
    """A positive real number whose logarithm is uniform on [ln low, ln high]."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)

    def sample(self, rng: np.random.Generator) -> float:
        """Returns one draw."""
        real = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(max(real, self.low), self.high)  # exp and log round


class UniformInt(FrozenConfig):
    """An integer, uniform over low, …, high: both ends included."""

    low: int
    high: int

    @model_validator(mode="after")
    def _check(self) -> Self:
        return _ordered(self)

    def sample(self, rng: np.random.Generator) -> int:
        """Returns one draw."""
        return int(rng.integers(self.low, self.high, endpoint=True))

    def contains(self, value: Any) -> bool:
        """Returns whether `value` is an integer in the range."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high


class LogUniformInt(UniformInt):
    """An integer over low, …, high (both included): exp(U(ln low, ln(high + 1))) rounded down."""

    low: int = Field(gt=0)
    high: int = Field(gt=0)

    def sample(self, rng: np.random.Generator) -> int:
        """Returns one draw."""
        real = math.exp(rng.uniform(math.log(self.low), math.log(self.high + 1)))
        return min(max(math.floor(real), self.low), self.high)


class Categorical(FrozenConfig):
    """One of `values`, with probability `weights` (equal when None)."""

    values: tuple[Value, ...] = Field(min_length=1)
    weights: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weights is not None:
            check_weights(self.weights, count=len(self.values))
        return self

    def sample(self, rng: np.random.Generator) -> Value:
        """Returns one draw."""
        return self.values[int(rng.choice(len(self.values), p=self.weights))]

    def contains(self, value: Any) -> bool:
        """Returns whether `value` is one of the values and has a positive weight."""
        weights = self.weights or (1.0,) * len(self.values)
        possible = [v for v, weight in zip(self.values, weights, strict=True) if weight > 0]
        return any(value == v and type(value) is type(v) for v in possible)


def check_weights(weights: tuple[float, ...], *, count: int) -> None:
    """Refuses weights that are not a probability for each of `count` values.

    Raises:
      ValueError: If a weight is negative, the lengths differ, or the sum is not 1.
    """
    if len(weights) != count:
        raise ValueError(f"`weights` must have one entry per value, got {len(weights)} for {count} values.")
    total = math.fsum(weights)
    if min(weights) < 0 or not math.isclose(total, 1.0, abs_tol=1e-6):
        raise ValueError(
            f"`weights` must be non-negative and sum to 1, got {weights} with sum {total:g}. "
            "Divide each by the sum."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ordered(prior: Any) -> Any:
    if prior.low > prior.high:
        raise ValueError(f"`low` must not exceed `high`, got low={prior.low}, high={prior.high}. Swap them.")
    return prior
