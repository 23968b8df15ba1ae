"""A configuration's key/value pairs as one row of numbers, standardised: what regressions work on.

A number is log-scaled (`features.log_scale`; those of a list are summed), a category is how often it occurs, and
nothing is clamped. Columns that never vary among the fitted rows are left out. A key or category that appears
later has no column: what the regression makes of that is its own matter, `count_unseen` says how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from lopt.config import FrozenConfig
from runtime_model.features import Pair, log_scale

AUGMENTATION = "augmentations"
COST = "cost."


class Design(FrozenConfig):
    """The columns of a design matrix, and what they are standardised by."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    constant: tuple[str, ...]
    """Columns that every fitted row shared: known, and without information."""

    @cached_property
    def positions(self) -> dict[str, int]:
        """Column name → index."""
        return {name: index for index, name in enumerate(self.names)}

    def matrix(self, pairs: Sequence[Sequence[Pair]]) -> np.ndarray:
        """Returns the standardised rows [n, D]."""
        rows = np.zeros((len(pairs), len(self.names)))
        for row, config_pairs in zip(rows, pairs, strict=True):
            for name, value in _entries(config_pairs):
                index = self.positions.get(name)
                if index is not None:
                    row[index] += value
        standardised: np.ndarray = (rows - np.asarray(self.mean)) / np.asarray(self.scale)
        return standardised

    def count_unseen(self, pairs: Sequence[Pair]) -> int:
        """Returns how many of a configuration's keys and categories no fitted row had."""
        known = self._known
        return sum(name not in known for name, _ in _entries(pairs))

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names) | frozenset(self.constant)

    def is_augmentation(self) -> np.ndarray:
        """Returns [D]: whether a column describes an augmentation."""
        return np.asarray([name.startswith(AUGMENTATION) for name in self.names], bool)

    def is_cost(self) -> np.ndarray:
        """Returns [D]: whether a column is one of the whole configuration's costs."""
        return np.asarray([name.startswith(COST) for name in self.names], bool)


def fit_design(pairs: Sequence[Sequence[Pair]]) -> Design:
    """Returns the design of the configurations to fit."""
    rows: list[dict[str, float]] = []
    for config_pairs in pairs:
        row: dict[str, float] = {}
        for name, value in _entries(config_pairs):
            row[name] = row.get(name, 0.0) + value
        rows.append(row)
    names = sorted({name for row in rows for name in row})
    table = np.asarray([[row.get(name, 0.0) for name in names] for row in rows])
    mean, scale = table.mean(axis=0), table.std(axis=0)
    varies = scale > 1e-9
    return Design(
        names=tuple(name for name, keep in zip(names, varies, strict=True) if keep),
        mean=tuple(mean[varies].tolist()),
        scale=tuple(scale[varies].tolist()),
        constant=tuple(name for name, keep in zip(names, varies, strict=True) if not keep),
    )


def _entries(pairs: Sequence[Pair]) -> list[tuple[str, float]]:
    return [
        (f"{key}={value}", 1.0) if isinstance(value, str) else (key, log_scale(value)) for key, value in pairs
    ]
