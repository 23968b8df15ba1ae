"""The condition that the candidate never diverged."""

from __future__ import annotations

from typing import Literal

from curriculum.evaluation.summary import CANDIDATE, EvaluationSummary
from curriculum.gates.condition import AbstractCondition, GateCheck, sample_text


class NoDivergenceConfig(AbstractCondition):
    """Every seed of the candidate ends with a finite loss, on every task."""

    condition: Literal["no_divergence"] = "no_divergence"

    def check(self, candidate: EvaluationSummary, champion: EvaluationSummary | None) -> GateCheck:
        """Returns whether no seed diverged; names the tasks on which one did."""
        del champion
        diverged = candidate.diverged(CANDIDATE)
        total, seeds = len(candidate.tasks), candidate.config.num_seeds
        reason = f"no seed diverged on any task ({sample_text(total, seeds)})"
        if diverged:
            reason = (
                f"a seed diverged on {len(diverged)} of {total} tasks: {', '.join(diverged)} "
                f"({sample_text(total, seeds)})"
            )
        return GateCheck(name="stability", passed=not diverged, reason=reason)
