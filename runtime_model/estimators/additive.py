"""Seconds as a sum of costs, each with a price that cannot be negative.

    seconds = Σ price · cost,   the costs being the configuration's own (`cost.*` pairs) and a constant, priced for
                                its family; and what its augmentations add, priced alike for all families

Every term is a piece of work (operations, values written, products that wait for one another), so the prices of
the machine are what is fitted. A second list, of prices for any family, is for those that were never timed. The
squared error is relative; a small ridge on the terms' shares keeps apart what few rows tell apart.

[1] Lawson & Hanson 1974, Solving Least Squares Problems, ch. 23 (`scipy.optimize.nnls`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.optimize import nnls

from runtime_model.design import AUGMENTATION, COST
from runtime_model.estimators.base import Arrays, EstimatorConfig, LogSeconds
from runtime_model.features import Pair
from runtime_model.table import TimingTable

ANY = "any"
CONSTANT = "constant"
LEAST_SECONDS = 1e-9
MIN_STD = 0.05
EVERYWHERE = ("low_precision",)
"""Augmentations that change how everything is computed."""
APPLIED = ("num_params", "depth")
"""Costs that the others' work goes with: something done to every gradient, and something per tensor."""
_FAMILY = re.compile(r"family(\[[^\]]*\])?\.family")


class AdditiveConfig(EstimatorConfig):
    """How to fit the prices."""

    ridge: float = 0.02
    """Squared penalty on a term's mean share of the seconds, per row."""
    rounds: int = 3
    """Each weighs the rows anew, so that the error counts relative to both the measured and the fitted."""

    @property
    def spans_families(self) -> bool:
        """One fit serves all families."""
        return True

    def fit(self, table: TimingTable, groups: Sequence[np.ndarray], *, seed: int) -> list[FittedAdditive]:
        """Fits the prices once per group; deterministic."""
        del seed
        own, any_family = ([_terms(pairs, kind) for pairs in table.pairs] for kind in (None, ANY))
        names = np.asarray([family_of(pairs) for pairs in table.pairs])
        fitted = []
        for group in groups:
            use = group & table.is_timed
            lists = [self._fit(rows, table.log_seconds, use) for rows in (own, any_family)]
            fitted.append(FittedAdditive(tuple(sorted(set(names[use].tolist()))), *lists))
        return fitted

    def _fit(self, rows: list[dict[str, float]], log_seconds: np.ndarray, use: np.ndarray) -> Prices:
        chosen = [row for row, wanted in zip(rows, use, strict=True) if wanted]
        names = tuple(sorted({name for row in chosen for name in row}))
        costs = _matrix(chosen, names)
        seconds = np.exp(log_seconds[use])
        share = np.maximum((costs / seconds[:, None]).mean(axis=0), 1e-30)
        shares = costs / share
        penalty = np.sqrt(self.ridge * len(seconds)) * np.eye(len(names))
        fitted = seconds
        for _ in range(self.rounds):
            weight = 1.0 / np.sqrt(seconds * fitted)
            system = np.concatenate([shares * weight[:, None], penalty])
            target = np.concatenate([seconds * weight, np.zeros(len(names))])
            found, _ = nnls(system, target, maxiter=30 * len(names))
            fitted = np.maximum(shares @ found, LEAST_SECONDS)
        priced = found > 0
        errors = np.log(fitted) - log_seconds[use]
        return Prices(
            tuple(name for name, keep in zip(names, priced, strict=True) if keep),
            (found / share)[priced],
            float(np.exp(np.mean(-errors))),
            max(MIN_STD, 1.4826 * float(np.median(np.abs(errors - np.mean(errors))))),
        )


class Prices(NamedTuple):
    """The terms that cost something, and what each costs."""

    names: tuple[str, ...]
    prices: np.ndarray  # [T] seconds per unit of cost
    level: float
    """Factor that makes the mean error of the log seconds zero."""
    std: float
    """Robust standard deviation of the log seconds that were fitted."""

    def log_seconds(self, rows: Sequence[Mapping[str, float]]) -> np.ndarray:
        """Returns the logarithm of the sums [n]."""
        costs = _matrix(rows, self.names)
        logs: np.ndarray = np.log(np.maximum(costs @ self.prices * self.level, LEAST_SECONDS))
        return logs


@dataclass(frozen=True)
class FittedAdditive:
    """The price list of the families that were timed, and one that is the same for any."""

    families: tuple[str, ...]
    own: Prices
    any_family: Prices

    def predict(self, pairs: Sequence[Sequence[Pair]]) -> LogSeconds:
        """Predicts the sum, for a family that was not timed by the prices for any."""
        is_known = np.isin([family_of(p) for p in pairs], self.families)
        own = self.own.log_seconds([_terms(p) for p in pairs])
        stranger = self.any_family.log_seconds([_terms(p, ANY) for p in pairs])
        std = np.where(is_known, self.own.std, self.any_family.std)
        return LogSeconds(np.where(is_known, own, stranger), std)

    def to_arrays(self) -> tuple[Arrays, dict[str, Any]]:
        """Returns the prices, and what they are of."""
        lists = {"own": self.own, "any_family": self.any_family}
        info = {name: [list(one.names), one.level, one.std] for name, one in lists.items()}
        return {name: one.prices for name, one in lists.items()}, {"families": list(self.families), **info}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], info: Mapping[str, Any]) -> Self:
        """Restores what `to_arrays` gave."""
        lists = (
            Prices(tuple(names), arrays[name], level, std)
            for name in ("own", "any_family")
            for names, level, std in [info[name]]
        )
        return cls(tuple(info["families"]), *lists)


AdditiveConfig.fitted_type = FittedAdditive


def family_of(pairs: Sequence[Pair]) -> str:
    """Returns the name of a configuration's family."""
    return next((str(value) for key, value in pairs if _FAMILY.fullmatch(key)), "")


def _terms(pairs: Sequence[Pair], kind: str | None = None) -> dict[str, float]:
    """Returns cost by term: every cost of the configuration, priced for its family or for `kind`."""
    costs = {CONSTANT: 1.0}
    costs |= {key.removeprefix(COST): float(value) for key, value in pairs if key.startswith(COST)}
    terms = {f"{kind or family_of(pairs)}:{name}": cost for name, cost in costs.items()}
    for key, value in pairs:
        if key.endswith(".augmentation"):
            kept = costs if value in EVERYWHERE else {name: costs.get(name, 0.0) for name in APPLIED}
            terms |= {f"{value}:{name}": cost for name, cost in kept.items()}
        elif key.startswith(AUGMENTATION) and not isinstance(value, str):  # of so many, each costs something
            terms |= {f"{key}:{name}": value * costs.get(name, 0.0) for name in (CONSTANT, *APPLIED)}
    return terms


def _matrix(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> np.ndarray:
    return np.asarray([[row.get(name, 0.0) for name in names] for row in rows]).reshape(len(rows), len(names))
