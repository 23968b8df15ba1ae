"""The condition that meta-training helped: speed-up relative to that of the weights it started from."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from curriculum.evaluation.summary import CANDIDATE, INITIALISATION, EvaluationSummary, geometric_mean
from curriculum.gates.condition import AbstractCondition, GateCheck, at_worst, sample_text, speedup_text


class GainOverInitialisationConfig(AbstractCondition):
    """The candidate's geometric-mean speed-up over its initialisation's is above `min_ratio`, and not all are 0."""

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
        trained, initial = (
            candidate.speedups(who, held_out=self.held_out) for who in (CANDIDATE, INITIALISATION)
        )
        num_tasks, num_seeds = trained.finite.shape
        sample = sample_text(num_tasks, num_seeds)
        if num_tasks == 0:
            return GateCheck(name=name, passed=not self.needs_tasks, reason=_no_task(name, candidate))
        if not np.any(trained.tasks > 0.0):
            return GateCheck(
                name=name, passed=False, reason=f"on no {name} task it ended below the start ({sample})"
            )
        fastest, remark = at_worst(initial, trained)
        ours, theirs = geometric_mean(trained.tasks), geometric_mean(fastest.tasks)
        return GateCheck(
            name=name,
            passed=ours > self.min_ratio * theirs,
            reason=(
                f"{name} speed-up {speedup_text(ours, trained)}, its initialisation "
                f"{speedup_text(theirs, initial)} (geometric means, {sample}; ratio {ours / theirs:.2f}, needed: "
                f"above {self.min_ratio:.2f}{remark})"
            ),
        )


def _no_task(name: str, candidate: EvaluationSummary) -> str:
    """Returns why there is nothing to check. What is not known to be held out counts as trained on."""
    unknown, total = sum(task.held_out is None for task in candidate.tasks), len(candidate.tasks)
    why = f"; of {unknown} of {total} it is not known whether they could have been sampled in training"
    return f"no {name} task was evaluated{why if unknown else ''}"
