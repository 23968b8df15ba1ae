"""The condition that the slow end is not worse than the champion's: the 10th percentile guided VeLO's development.

[1] Metz et al. 2022, "VeLO: Training Versatile Learned Optimizers by Scaling Up", App. E.4.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curriculum.evaluation.aggregate import task_quantile
from curriculum.evaluation.summary import CANDIDATE, EvaluationSummary
from curriculum.gates.condition import AbstractComparison, GateCheck, at_worst, sample_text


class QuantileNotWorseConfig(AbstractComparison):
    """A quantile over tasks of the speed-up is at least `min_ratio` times the champion's."""

    condition: Literal["quantile_not_worse"] = "quantile_not_worse"
    quantile: float = Field(0.1, ge=0, le=1)
    min_ratio: float = Field(1.0, gt=0)

    @property
    def check_name(self) -> str:
        """What the check is called."""
        return f"champion, {100 * self.quantile:g}th percentile"

    def compare(self, candidate: EvaluationSummary, champion: EvaluationSummary) -> GateCheck:
        """Returns whether it is."""
        statistic = task_quantile(self.quantile)
        speedups, reference = candidate.speedups(CANDIDATE), champion.speedups(CANDIDATE)
        fastest, remark = at_worst(reference, speedups)
        new, old = float(statistic(speedups.tasks)), float(statistic(fastest.tasks))
        return GateCheck(
            name=self.check_name,
            passed=new >= self.min_ratio * old,
            reason=(
                f"{100 * self.quantile:g}th percentile over tasks of the speed-up {new:.2f} against the champion's "
                f"{old:.2f} ({sample_text(*speedups.finite.shape)}; needed: at least {self.min_ratio:.2f} of it"
                f"{remark})"
            ),
        )
