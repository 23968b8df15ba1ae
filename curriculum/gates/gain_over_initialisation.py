"""The condition that meta-training helped: speed-up relative to that of the weights it started from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curriculum.evaluation.summary import CANDIDATE, INITIALISATION, EvaluationSummary
from curriculum.gates.condition import AbstractCondition, GateCheck, sample_text


class GainOverInitialisationConfig(AbstractCondition):
    """The candidate's geometric-mean speed-up over its initialisation's is at least `min_ratio`."""

    condition: Literal["gain_over_initialisation"] = "gain_over_initialisation"
    held_out: bool
    """On held-out tasks, or on tasks like those it was trained on."""
    min_ratio: float = Field(gt=0)
    needs_tasks: bool = True
    """Whether it takes such a task to meet the condition. False: where none was evaluated, it is met."""

    def check(self, candidate: EvaluationSummary, champion: EvaluationSummary | None) -> GateCheck:
        """Returns whether it did; without such a task nothing has shown it."""
        del champion
        name = "held-out" if self.held_out else "in-distribution"
        num_tasks, num_seeds = candidate.speedups(CANDIDATE, held_out=self.held_out).finite.shape
        if num_tasks == 0:
            return GateCheck(name=name, passed=not self.needs_tasks, reason=_no_task(name, candidate))
        trained = candidate.geometric_mean_speedup(CANDIDATE, held_out=self.held_out)
        initial = candidate.geometric_mean_speedup(INITIALISATION, held_out=self.held_out)
        return GateCheck(
            name=name,
            passed=trained >= self.min_ratio * initial,
            reason=(
                f"{name} speed-up {trained:.2f}, its initialisation {initial:.2f} (geometric means, "
                f"{sample_text(num_tasks, num_seeds)}; ratio {trained / initial:.2f}, needed {self.min_ratio:.2f})"
            ),
        )


def _no_task(name: str, candidate: EvaluationSummary) -> str:
    """Returns why there is nothing to check. What is not known to be held out counts as trained on."""
    unknown, total = sum(task.held_out is None for task in candidate.tasks), len(candidate.tasks)
    why = f"; of {unknown} of {total} it is not known whether they could have been sampled in training"
    return f"no {name} task was evaluated{why if unknown else ''}"
