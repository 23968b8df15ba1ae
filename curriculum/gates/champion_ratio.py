"""The condition that the candidate is at least about as fast as the champion, by geometric means."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curriculum.evaluation.summary import CANDIDATE, EvaluationSummary, geometric_mean
from curriculum.gates.condition import (
    AbstractComparison,
    GateCheck,
    at_worst,
    on_both,
    sample_text,
    speedup_text,
)


class ChampionRatioConfig(AbstractComparison):
    """The candidate's geometric-mean speed-up over the champion's is at least `min_ratio`."""

    condition: Literal["champion_ratio"] = "champion_ratio"
    held_out: bool | None = None
    """On tasks held out from both trainings, on those held out from neither, or (None) on all. Without such a task
    the condition isn't met."""
    min_ratio: float = Field(gt=0)
    min_tasks: int = Field(1, ge=1)
    """How many such tasks there must be."""

    @property
    def check_name(self) -> str:
        """What the check is called."""
        return "champion" + {None: "", True: ", held-out", False: ", in-distribution"}[self.held_out]

    def compare(self, candidate: EvaluationSummary, champion: EvaluationSummary) -> GateCheck:
        """Returns whether the ratio is large enough."""
        tasks = {None: "", True: "held-out ", False: "in-distribution "}[self.held_out]
        both = on_both(candidate, champion, held_out=self.held_out)
        new, old = (each.speedups(CANDIDATE) for each in both)
        num_tasks, num_seeds = new.finite.shape
        if num_tasks < self.min_tasks:
            return GateCheck(
                name=self.check_name,
                passed=False,
                reason=(
                    f"{num_tasks or 'no'} {tasks}task{'s' if num_tasks > 1 else ''} of both: needed to compare: "
                    f"{self.min_tasks}"
                ),
            )
        fastest, remark = at_worst(old, new)
        ours, theirs = geometric_mean(new.tasks), geometric_mean(fastest.tasks)
        return GateCheck(
            name=self.check_name,
            passed=ours >= self.min_ratio * theirs,
            reason=(
                f"{tasks}speed-up {speedup_text(ours, new)} against the champion's "
                f"{speedup_text(theirs, old, remark)} (geometric means, {sample_text(num_tasks, num_seeds)}; ratio "
                f"{ours / theirs:.2f}, needed {self.min_ratio:.2f}{remark})"
            ),
        )
