"""May a checkpoint become the champion? A value with its reasons, never an exception."""

from __future__ import annotations

from curriculum.evaluation.summary import EvaluationSummary
from curriculum.gates import Gate, GateCheck
from lopt.config import FrozenConfig


class PromotionDecision(FrozenConfig):
    """Whether to promote; the reasons are stored either way."""

    gate: str
    promote: bool
    checks: tuple[GateCheck, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """One line per check."""
        return tuple(f"{'passed' if c.passed else 'failed'}: {c.reason}" for c in self.checks)


def decide(candidate: EvaluationSummary, champion: EvaluationSummary | None, gate: Gate) -> PromotionDecision:
    """Returns the decision on a candidate: every condition of the gate is checked, and all must be met.

    Args:
      candidate: Its evaluation, initialisation included.
      champion: The present champion's evaluation on the same tasks; None if there is none.
      gate: The conditions.
    """
    checks = tuple(condition.check(candidate, champion) for condition in gate.conditions)
    return PromotionDecision(gate=gate.name, promote=all(check.passed for check in checks), checks=checks)
