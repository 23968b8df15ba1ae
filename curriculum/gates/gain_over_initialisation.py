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
    """Whether it takes such a task to meet the condition. False: where there is none, all tasks must show it."""

    def check(self, candidate: EvaluationSummary, champion: EvaluationSummary | None) -> GateCheck:
        """Returns whether it did; without such a task nothing has shown it."""
        del champion
        name, where = "held-out" if self.held_out else "in-distribution", ""
        held_out: bool | None = self.held_out
        if not len(candidate.speedups(CANDIDATE, held_out=held_out).tasks):
            if self.needs_tasks:
                return GateCheck(name=name, passed=False, reason=_no_task(name, candidate))
            held_out, where = None, f"{_no_task(name, candidate)}; on all: "
        trained, initial = (candidate.speedups(who, held_out=held_out) for who in (CANDIDATE, INITIALISATION))
        sample = sample_text(*trained.finite.shape)
        if not np.any(trained.tasks > 0.0):
            reason = f"{where}on no {'' if where else f'{name} '}task it ended below the start ({sample})"
            return GateCheck(name=name, passed=False, reason=reason)
        fastest, remark = at_worst(initial, trained)
        ours, theirs = geometric_mean(trained.tasks), geometric_mean(fastest.tasks)
        return GateCheck(
            name=name,
            passed=ours > self.min_ratio * theirs,
            reason=(
                f"{where or f'{name} '}speed-up {speedup_text(ours, trained)}, its initialisation "
                f"{speedup_text(theirs, initial, remark)} (geometric means, {sample}; ratio {ours / theirs:.2f}, "
                f"needed: above {self.min_ratio:.2f}{remark})"
            ),
        )


def _no_task(name: str, candidate: EvaluationSummary) -> str:
    """Returns why there is nothing to check. What is not known to be held out counts as trained on."""
    unknown, total = sum(task.held_out is None for task in candidate.tasks), len(candidate.tasks)
    why = f"; of {unknown} of {total} it is not known whether they could have been sampled in training"
    return f"no {name} task was evaluated{why if unknown else ''}"
