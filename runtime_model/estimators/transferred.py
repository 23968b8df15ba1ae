"""A model fitted elsewhere, corrected by a few timings made here.

    log seconds here = log seconds there + offset + slope · (log seconds there, standardised) + offset of the family

All terms are random effects with standard deviations of their own, estimated by the marginal likelihood under
priors that say what hardware differs by; the base model's own uncertainty is part of the noise. With two dozen
timings the offset and slope are known and the families' offsets shrink towards them; with none the correction is
zero and its uncertainty that of the priors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from scipy.linalg import cho_solve
from scipy.optimize import minimize

from runtime_model.estimators.base import Arrays, LogSeconds
from runtime_model.features import Pair
from runtime_model.table import TimingTable

PRIORS = {"offset": (0.7, 1.0), "slope": (0.15, 1.0), "family": (0.2, 1.0), "noise": (0.08, 0.7)}
"""Median and standard deviation of the logarithm, of each standard deviation in log seconds."""
ROUNDS = 4
TOLERATED = 1.5
"""Standard deviations beyond which a timing counts less: a spoiled one must not move all others."""
NO_WEIGHT = 1e3


class Base(Protocol):
    """A model fitted elsewhere."""

    def predict_log(self, pairs: Sequence[Sequence[Pair]], families: Sequence[str]) -> LogSeconds:
        """Predicts log seconds there."""
        ...


def fit_transfer(table: TimingTable, groups: Sequence[np.ndarray], base: Base) -> list[FittedTransfer]:
    """Fits one correction per group, to the rows that it marks [N] and whose seconds are known."""
    there = base.predict_log(table.pairs, table.families.tolist())
    return [_fit(table, there, group & table.is_timed) for group in groups]


def _fit(table: TimingTable, there: LogSeconds, rows: np.ndarray) -> FittedTransfer:
    """Fits to at least one row; where there is none, a row without weight stands in."""
    base, std, families = there.mean[rows], there.std[rows], table.families[rows]
    if not len(base):
        base, std, families = there.mean[:1], np.full(1, NO_WEIGHT), table.families[:1]
        rows = np.arange(len(rows)) == 0
    scale = np.asarray([base.mean(), max(float(np.std(base)), 1.0)])
    known = tuple(sorted(set(families.tolist())))
    effects = _effects(base, families, scale, known)
    residual = np.nan_to_num(table.log_seconds[rows] - base)
    wide = std
    for _ in range(ROUNDS):
        deviations, mean, covariance = _posterior(effects, residual, wide)
        surprise = np.abs(residual - effects @ mean) / np.sqrt(std**2 + deviations[3] ** 2)
        wide = std * np.maximum(1.0, surprise / TOLERATED)  # Huber's weights, as standard deviations
    return FittedTransfer(known, scale, deviations, mean, covariance)


@dataclass(frozen=True)
class FittedTransfer:
    """The posterior of the effects: offset, slope, then one offset per family."""

    families: tuple[str, ...]
    scale: np.ndarray  # [2]
    deviations: np.ndarray  # [4], as `PRIORS`
    mean: np.ndarray  # [E]
    covariance: np.ndarray  # [E, E]

    def correct(self, there: LogSeconds, families: Sequence[str]) -> LogSeconds:
        """Returns what the base's predictions become here."""
        names = np.asarray(families)
        effects = _effects(there.mean, names, self.scale, self.families)
        variance = np.einsum("ne,ef,nf->n", effects, self.covariance, effects)
        unknown = ~np.isin(names, self.families)
        variance = variance + unknown * self.deviations[2] ** 2 + self.deviations[3] ** 2 + there.std**2
        return LogSeconds(there.mean + effects @ self.mean, np.sqrt(variance))

    def to_arrays(self) -> tuple[Arrays, dict[str, Any]]:
        """Returns the posterior, and the families."""
        arrays = {
            "scale": self.scale,
            "deviations": self.deviations,
            "mean": self.mean,
            "covariance": self.covariance,
        }
        return arrays, {"families": list(self.families)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], info: Mapping[str, Any]) -> Self:
        """Restores what `to_arrays` gave."""
        return cls(tuple(info["families"]), **arrays)


def _posterior(
    effects: np.ndarray, residual: np.ndarray, std: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the deviations [4] with the largest posterior, and given those the effects' mean and covariance."""
    medians, widths = (np.asarray(column) for column in zip(*PRIORS.values(), strict=True))

    def negative(logs: np.ndarray) -> float:
        factor = np.linalg.cholesky(_covariance(effects, np.exp(logs), std))
        surprise = (logs - np.log(medians)) / widths
        fit = 0.5 * residual @ cho_solve((factor, True), residual) + np.log(np.diagonal(factor)).sum()
        return float(fit + 0.5 * surprise @ surprise)

    deviations = np.exp(minimize(negative, np.log(medians), method="L-BFGS-B").x)
    prior = _prior(deviations, effects.shape[1] - 2)
    gain = prior[:, None] * effects.T  # [E, n]
    factor = np.linalg.cholesky(_covariance(effects, deviations, std))
    solved = cho_solve((factor, True), gain.T)
    return deviations, solved.T @ residual, np.diag(prior) - gain @ solved


def _effects(base: np.ndarray, families: np.ndarray, scale: np.ndarray, known: Sequence[str]) -> np.ndarray:
    """Returns the design [n, 2 + F] of the random effects."""
    columns = [
        np.ones(len(base)),
        (base - scale[0]) / scale[1],
        *((families == name) * 1.0 for name in known),
    ]
    return np.column_stack(columns)


def _prior(deviations: np.ndarray, num_families: int) -> np.ndarray:
    """Returns the prior variance of each effect."""
    return np.concatenate([deviations[:2], np.full(num_families, deviations[2])]) ** 2


def _covariance(effects: np.ndarray, deviations: np.ndarray, std: np.ndarray) -> np.ndarray:
    prior = _prior(deviations, effects.shape[1] - 2)
    return (effects * prior) @ effects.T + np.diag(std**2 + deviations[3] ** 2)
