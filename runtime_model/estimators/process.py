"""The sum of costs, corrected by one Gaussian process per family.

The process sees what the prices leave of the log seconds, as a function of the family's fields, costs and
augmentations: where products are small or odd, say, and an operation costs more than elsewhere. A family with few
timings, or none, keeps the sum alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from runtime_model.design import Design, fit_design
from runtime_model.estimators.additive import AdditiveConfig, FittedAdditive, family_of
from runtime_model.estimators.base import Arrays, EstimatorConfig, LogSeconds
from runtime_model.features import Pair
from runtime_model.gaussian_process import GaussianProcess, fit_gaussian_process
from runtime_model.table import TimingTable

UNSEEN_STD = 0.3
"""Added to the standard deviation per key or category that no fitted row of the family had."""
MIN_ROWS = 12


class ProcessConfig(EstimatorConfig):
    """Typical lengths are for columns of variance 1, times the root of the number of the family's own columns."""

    sum_of_costs: AdditiveConfig = AdditiveConfig()
    length: float = 1.0
    augmentation_length: float = 2.0
    """Longer: the prices know most of what an augmentation costs."""
    cost_weight: float = 1.0
    field_weight: float = 0.3

    @property
    def spans_families(self) -> bool:
        """One fit serves all families."""
        return True

    def fit(self, table: TimingTable, groups: Sequence[np.ndarray], *, seed: int) -> list[FittedProcess]:
        """Fits prices and processes once per group; deterministic."""
        sums = self.sum_of_costs.fit(table, groups, seed=seed)
        return [
            self._correct(one, table.rows(group & table.is_timed))
            for one, group in zip(sums, groups, strict=True)
        ]

    def _correct(self, prices: FittedAdditive, table: TimingTable) -> FittedProcess:
        left = table.log_seconds - prices.predict(table.pairs).mean
        parts = {}
        for family in sorted(set(table.families.tolist())):
            inside = table.families == family
            if inside.sum() >= MIN_ROWS:
                parts[family] = self._fit_family(table.rows(inside), left[inside])
        return FittedProcess(prices, parts)

    def _fit_family(self, table: TimingTable, left: np.ndarray) -> tuple[Design, GaussianProcess]:
        design = fit_design(table.pairs)
        extra = design.is_augmentation()
        root = np.sqrt(max(1, int((~extra).sum())))
        process = fit_gaussian_process(
            design.matrix(table.pairs),
            left,
            typical_length=root * np.where(extra, self.augmentation_length, self.length),
            weight=np.where(design.is_cost(), self.cost_weight, self.field_weight),
        )
        return design, process


@dataclass(frozen=True)
class FittedProcess:
    """The prices, and by family a process and the design of its rows."""

    prices: FittedAdditive
    parts: Mapping[str, tuple[Design, GaussianProcess]]

    def predict(self, pairs: Sequence[Sequence[Pair]]) -> LogSeconds:
        """Predicts; what a family's design has not seen makes the prediction less certain."""
        mean, std = self.prices.predict(pairs)
        families = np.asarray([family_of(p) for p in pairs])
        for family, (design, process) in self.parts.items():
            at = np.flatnonzero(families == family)
            if len(at):
                inside = [pairs[int(i)] for i in at]
                left, spread = process.predict(design.matrix(inside))
                unseen = np.asarray([design.count_unseen(p) for p in inside])
                mean[at], std[at] = mean[at] + left, np.sqrt(spread**2 + unseen * UNSEEN_STD**2)
        return LogSeconds(mean, std)

    def to_arrays(self) -> tuple[Arrays, dict[str, Any]]:
        """Returns the prices and every process's arrays, and the designs."""
        arrays, info = self.prices.to_arrays()
        for family, (_, process) in self.parts.items():
            arrays |= {f"{family}.{field}": value for field, value in process._asdict().items()}
        designs = {family: design.model_dump(mode="json") for family, (design, _) in self.parts.items()}
        return arrays, {"prices": info, "designs": designs}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], info: Mapping[str, Any]) -> Self:
        """Restores what `to_arrays` gave."""
        parts = {
            family: (
                Design.model_validate(design),
                GaussianProcess(*(arrays[f"{family}.{field}"] for field in GaussianProcess._fields)),
            )
            for family, design in info["designs"].items()
        }
        return cls(FittedAdditive.from_arrays(arrays, info["prices"]), parts)


ProcessConfig.fitted_type = FittedProcess
