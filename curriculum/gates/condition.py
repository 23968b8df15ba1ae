"""What a condition of a gate is: a value that looks at an evaluation and answers with a check.

A speed-up at the cap is "at least that". Where the one that a candidate is compared with is at the cap, and the
candidate is not, the candidate would gain by how little could be seen: conditions therefore count the other's with
the largest number that tables count, or three times the cap (`at_worst`). Where both are there they count alike.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from curriculum.evaluation.aggregate import Speedups
from curriculum.evaluation.comparison import MAX_SPEEDUP
from curriculum.evaluation.summary import EvaluationSummary
from lopt.config import FrozenConfig

UNSEEN = 3.0
"""What is at the cap counts as at least so many times the cap, where that is against the candidate."""


class GateCheck(FrozenConfig):
    """One condition and how it came out; the reason has its numbers, and of how many tasks and seeds they are."""

    name: str
    passed: bool
    reason: str


class AbstractCondition(FrozenConfig):
    """One condition of a gate. A subclass has the field `condition` with the name it is registered under."""

    @abstractmethod
    def check(self, candidate: EvaluationSummary, champion: EvaluationSummary | None) -> GateCheck:
        """Returns how the condition came out.

        Args:
          candidate: Its evaluation, initialisation included.
          champion: The present champion's; None if there is none.
        """


class AbstractComparison(AbstractCondition):
    """A condition on candidate and champion; it is met where there is no champion.

    The two must have been evaluated alike: on the same tasks, with the same settings and seeds. Otherwise
    nothing is compared and the condition isn't met.
    """

    def check(self, candidate: EvaluationSummary, champion: EvaluationSummary | None) -> GateCheck:
        """Returns how the comparison came out."""
        if champion is None:
            return GateCheck(name=self.check_name, passed=True, reason="there is no champion yet")
        if not evaluated_alike(candidate, champion):
            return GateCheck(
                name=self.check_name,
                passed=False,
                reason="the champion was evaluated on other tasks or settings; run `keirin evaluate champion` "
                "with the candidate's --set, --budget, --horizon and --num-seeds",
            )
        return self.compare(candidate, champion)

    @property
    @abstractmethod
    def check_name(self) -> str:
        """What the check is called."""

    @abstractmethod
    def compare(self, candidate: EvaluationSummary, champion: EvaluationSummary) -> GateCheck:
        """Returns how the condition came out for two that were evaluated alike."""


def evaluated_alike(one: EvaluationSummary, other: EvaluationSummary) -> bool:
    """Whether two evaluations are of the same tasks, settings and number of seeds."""
    return one.config == other.config and {t.task for t in one.tasks} == {t.task for t in other.tasks}


def on_both(
    candidate: EvaluationSummary, champion: EvaluationSummary, *, held_out: bool | None
) -> tuple[EvaluationSummary, EvaluationSummary]:
    """Returns both evaluations on the tasks that are held out, or not, for both: their trainings may differ.

    Args:
      candidate: One.
      champion: The other, evaluated alike.
      held_out: Only held-out tasks, only the others, or (None) all.
    """
    both = (candidate, champion)
    chosen = [{t.task for t in one.tasks if held_out is None or bool(t.held_out) == held_out} for one in both]
    names = chosen[0] & chosen[1]
    one, other = (
        EvaluationSummary(config=each.config, tasks=tuple(t for t in each.tasks if t.task in names))
        for each in both
    )
    return one, other


def at_worst(reference: Speedups, candidate: Speedups) -> tuple[Speedups, str]:
    """Returns what a candidate is compared with, at its best, and a remark on it; empty if nothing is capped.

    Args:
      reference: The champion's or the initialisation's speed-ups.
      candidate: The candidate's, on the same tasks.
    """
    unseen = reference.is_capped & ~candidate.is_capped
    if not np.any(unseen):
        return reference, ""
    seen, count = float(np.max(reference.caps[unseen])), int(np.sum(unseen))
    most = max(MAX_SPEEDUP, UNSEEN * seen)
    remark = (
        f"; {count} of the latter's at the cap of {seen:g}× count as {most:g}× where the candidate's is not: "
        "`--normalizer-factor` raises the cap"
    )
    return reference.raised_on(unseen, most), remark


def speedup_text(value: float, speedups: Speedups, remark: str = "") -> str:
    """Returns the number, as "≥ 2.10" if one of its speed-ups is at the cap and no remark says what that counts."""
    return f"{'≥ ' if np.any(speedups.is_capped) and not remark else ''}{value:.2f}"


def sample_text(num_tasks: int, num_seeds: int) -> str:
    """Returns what a number is of: "n = 24 tasks × 3 seeds"."""
    tasks, seeds = "task" if num_tasks == 1 else "tasks", "seed" if num_seeds == 1 else "seeds"
    return f"n = {num_tasks} {tasks} × {num_seeds} {seeds}"
