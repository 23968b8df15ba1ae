"""The condition that the candidate is not slower than the champion could have been with other seeds.

It refuses what is worse beyond the champion's own noise, and so lets through what is a little worse: after many
promotions by it alone, speed could drift down. A gate combines it with comparisons of other kinds (`strict` does).

[1] Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS), Sec. 4.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from curriculum.evaluation.aggregate import interquartile_mean, stratified_bootstrap
from curriculum.evaluation.summary import CANDIDATE, EvaluationSummary
from curriculum.gates.condition import AbstractComparison, GateCheck, at_worst, sample_text


class AboveChampionIntervalConfig(AbstractComparison):
    """The candidate's interquartile-mean speed-up is above the lower end of the champion's interval over seeds."""

    condition: Literal["above_champion_interval"] = "above_champion_interval"
    confidence: float = Field(0.95, gt=0, lt=1)

    @property
    def check_name(self) -> str:
        """What the check is called."""
        return "champion, interquartile mean"

    def compare(self, candidate: EvaluationSummary, champion: EvaluationSummary) -> GateCheck:
        """Returns whether it is."""
        speedups = candidate.speedups(CANDIDATE)
        new = float(interquartile_mean(speedups.tasks))
        fastest, remark = at_worst(champion.speedups(CANDIDATE), speedups)
        old = stratified_bootstrap(fastest, confidence=self.confidence)
        sample = sample_text(old.num_tasks, old.num_seeds)
        interval, needed = f" [{old.low:.2f}, {old.high:.2f}]", f"above {old.low:.2f}"
        if math.isnan(old.low):  # one seed says nothing of others
            interval, needed = "", f"at least {old.value:.2f}"
        return GateCheck(
            name=self.check_name,
            passed=new > old.low or new >= old.value,
            reason=(
                f"interquartile-mean speed-up {new:.2f} against the champion's {old.value:.2f}{interval} "
                f"({self.confidence:.0%} interval over seeds, {sample}; needed: {needed}{remark})"
            ),
        )
