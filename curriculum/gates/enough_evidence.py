"""The condition that the evaluation is of enough tasks and seeds for its numbers to mean something."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curriculum.evaluation.summary import CANDIDATE, EvaluationSummary
from curriculum.gates.condition import AbstractCondition, GateCheck, sample_text


class EnoughEvidenceConfig(AbstractCondition):
    """At least so many tasks, of these so many held out, and so many seeds of each."""

    condition: Literal["enough_evidence"] = "enough_evidence"
    min_tasks: int = Field(ge=1)
    min_held_out: int = Field(0, ge=0)
    min_seeds: int = Field(1, ge=1)

    def check(self, candidate: EvaluationSummary, champion: EvaluationSummary | None) -> GateCheck:
        """Returns whether there is."""
        del champion
        num_tasks, num_seeds = candidate.speedups(CANDIDATE).finite.shape
        num_held_out = len(candidate.speedups(CANDIDATE, held_out=True).tasks)
        enough = (
            num_tasks >= self.min_tasks and num_held_out >= self.min_held_out and num_seeds >= self.min_seeds
        )
        return GateCheck(
            name="evidence",
            passed=enough,
            reason=(
                f"evaluated with {sample_text(num_tasks, num_seeds)}, {num_held_out} of the tasks held out; "
                f"needed: {self.min_tasks} tasks, {self.min_held_out} held out, {self.min_seeds} seeds"
            ),
        )
