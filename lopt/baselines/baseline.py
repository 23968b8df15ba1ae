"""What a baseline is: a name, a factory and the hyper-parameters that one would try, all of it data.

A *setting* is one trial's hyper-parameters: a learning rate, or a NamedTuple of numbers. It is a pytree of scalars
that may be traced, so that one compiled program serves a whole search (`jax.vmap` over stacked settings).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import optax

from lopt.types import Params, Scalar

Setting = Any
Factory = Callable[[Setting, Scalar], optax.GradientTransformationExtraArgs]
"""(setting, number of steps) → transformation; both may be traced."""

LEARNING_RATE_GRID: tuple[float, ...] = (
    *(round(mantissa * 10.0**exponent, 8) for exponent in range(-7, 0) for mantissa in (1.0, 3.0)),
    1.0,
)
"""Fifteen rates from 1e-7 to 1: every half power of ten, rounded as the field does (1, 3, 10, …)."""


class SearchSpace(NamedTuple):
    """The trials that tune a baseline, numbered from 0."""

    kind: Literal["grid", "random", "list", "none"]
    """A grid to run whole; independent draws; a list whose first trials are the most useful; nothing to tune."""
    num_settings: int
    setting: Callable[[int], Setting]

    def settings(self, num_trials: int | None = None) -> tuple[Setting, ...]:
        """Returns the first `num_trials` settings; None for all.

        Raises:
          ValueError: If there are not as many.
        """
        count = self.num_settings if num_trials is None else num_trials
        if not 1 <= count <= self.num_settings:
            raise ValueError(
                f"`num_trials` must be between 1 and {self.num_settings}, the size of this search space, "
                f"got {num_trials}"
            )
        return tuple(self.setting(i) for i in range(count))


def grid(values: tuple[float, ...]) -> SearchSpace:
    """Returns the search space that consists of `values`."""
    return SearchSpace("grid", len(values), values.__getitem__)


def nothing_to_tune(setting: float) -> SearchSpace:
    """Returns the search space of a baseline that its authors mean to be used as it is."""
    return SearchSpace("none", 1, (setting,).__getitem__)


TUNED_LEARNING_RATE = grid(LEARNING_RATE_GRID)


def trained_params(state: optax.OptState, params: Params) -> Params:
    """Returns `params`: what most optimizers evaluate is what they train."""
    del state  # only averaging optimizers keep another point there
    return params


class Baseline(NamedTuple):
    """A hand-designed optimizer, and how one would tune it."""

    name: str
    label: str
    factory: Factory
    search_space: SearchSpace = TUNED_LEARNING_RATE
    eval_params: Callable[[optax.OptState, Params], Params] = trained_params
    """(optimizer state, trained parameters) → the parameters whose loss counts; see `schedule_free`."""
