"""The condition that the candidate is at least about as fast as the champion, by geometric means."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curriculum.evaluation.summary import CANDIDATE, EvaluationSummary
from curriculum.gates.condition import AbstractComparison, GateCheck, on_both, sample_text


class ChampionRatioConfig(AbstractComparison):
    """The candidate's geometric-mean speed-up over the champion's is at least `min_ratio`."""

    condition: Literal["champion_ratio"] = "champion_ratio"
    held_out: bool | None = None
    """On tasks held out from both trainings, on those held out from neither, or (None) on all. Without such a task
    the condition isn't met."""
    min_ratio: float = Field(gt=0)

    @property
    def check_name(self) -> str:
        """What the check is called."""
        return "champion" + {None: "", True: ", held-out", False: ", in-distribution"}[self.held_out]

    def compare(self, candidate: EvaluationSummary, champion: EvaluationSummary) -> GateCheck:
        """Returns whether the ratio is large enough."""
        tasks = {None: "", True: "held-out ", False: "in-distribution "}[self.held_out]
        candidate, champion = on_both(candidate, champion, held_out=self.held_out)
        num_tasks, num_seeds = candidate.speedups(CANDIDATE).finite.shape
        if num_tasks == 0:
            return GateCheck(
                name=self.check_name, passed=False, reason=f"no {tasks}task was evaluated: nothing to compare"
            )
        new, old = (each.geometric_mean_speedup(CANDIDATE) for each in (candidate, champion))
        return GateCheck(
            name=self.check_name,
            passed=new >= self.min_ratio * old,
            reason=(
                f"{tasks}speed-up {new:.2f} against the champion's {old:.2f} (geometric means, "
                f"{sample_text(num_tasks, num_seeds)}; ratio {new / old:.2f}, needed {self.min_ratio:.2f})"
            ),
        )
