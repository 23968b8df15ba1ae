"""What every way to predict log seconds can do: be fitted to rows of a table, predict, and be stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

from lopt.config import FrozenConfig
from runtime_model.features import Pair
from runtime_model.table import TimingTable

Arrays = dict[str, np.ndarray]


class LogSeconds(NamedTuple):
    """Predicted natural logarithms of seconds per step."""

    mean: np.ndarray  # [n]
    std: np.ndarray  # [n]: of one further measurement


class Fitted(Protocol):
    """A fitted estimator."""

    def predict(self, pairs: Sequence[Sequence[Pair]]) -> LogSeconds:
        """Predicts from the configurations' key/value pairs; at least one."""
        ...

    def to_arrays(self) -> tuple[Arrays, dict[str, Any]]:
        """Returns its arrays by name, and the rest as JSON data."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], info: Mapping[str, Any]) -> Self:
        """Restores what `to_arrays` gave."""
        ...


@runtime_checkable
class PredictsValidity(Protocol):
    """A fitted estimator that says which configurations run, too."""

    def valid_probability(self, pairs: Sequence[Sequence[Pair]]) -> np.ndarray:
        """Returns the probability [n] of running within the limits of the timings."""
        ...


class EstimatorConfig(FrozenConfig):
    """How to fit one kind of estimator."""

    fitted_type: ClassVar[type[Any]]
    """What `fit` returns a list of; restores itself from arrays."""

    @property
    def spans_families(self) -> bool:
        """Whether one fit serves all families, those included that it was not fitted to."""
        return False

    def fit(self, table: TimingTable, groups: Sequence[np.ndarray], *, seed: int) -> list[Any]:
        """Fits once per group, to the rows that the group marks [N] and whose seconds are known."""
        raise NotImplementedError
