"""The gate: may a checkpoint become the champion? A value with its reasons, never an exception."""

from __future__ import annotations

from pydantic import Field

from curriculum.evaluation import CANDIDATE, INITIALISATION, EvaluationSummary
from lopt.config import FrozenConfig


class GateConfig(FrozenConfig):
    """What a candidate must show."""

    min_gain_in_distribution: float = Field(1.0, gt=0)
    """Speed-up over tuned Adam, relative to the initialisation's, on tasks like those it was trained on."""
    min_gain_held_out: float = Field(0.95, gt=0)
    """The same on held-out tasks: meta-training may not cost generalisation by more than this."""
    min_ratio_to_champion: float = Field(1.0, gt=0)
    """Speed-up over all tasks, relative to the present champion's."""


class GateCheck(FrozenConfig):
    """One condition and how it came out."""

    name: str
    passed: bool
    reason: str


class PromotionDecision(FrozenConfig):
    """Whether to promote; the reasons are stored either way."""

    promote: bool
    checks: tuple[GateCheck, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """One line per check."""
        return tuple(f"{'passed' if c.passed else 'failed'}: {c.reason}" for c in self.checks)


def decide(
    candidate: EvaluationSummary, champion: EvaluationSummary | None, gate: GateConfig
) -> PromotionDecision:
    """Returns the decision on a candidate.

    Args:
      candidate: Its evaluation, initialisation included.
      champion: The present champion's evaluation on the same tasks; None if there is none.
      gate: The conditions.
    """
    checks = [
        _stability(candidate),
        _gain(candidate, "in-distribution", held_out=False, minimum=gate.min_gain_in_distribution),
        _gain(candidate, "held-out", held_out=True, minimum=gate.min_gain_held_out),
        _against_champion(candidate, champion, gate.min_ratio_to_champion),
    ]
    return PromotionDecision(promote=all(check.passed for check in checks), checks=tuple(checks))


def _stability(candidate: EvaluationSummary) -> GateCheck:
    diverged = candidate.diverged(CANDIDATE)
    total = len(candidate.tasks)
    reason = f"no seed diverged on any of {total} tasks"
    if diverged:
        reason = f"a seed diverged on {len(diverged)} of {total} tasks: {', '.join(diverged)}"
    return GateCheck(name="stability", passed=not diverged, reason=reason)


def _gain(candidate: EvaluationSummary, name: str, *, held_out: bool, minimum: float) -> GateCheck:
    num_tasks = sum(task.held_out == held_out for task in candidate.tasks)
    if num_tasks == 0:
        return GateCheck(name=name, passed=True, reason=f"no {name} task was evaluated")
    trained = candidate.geometric_mean_speedup(CANDIDATE, held_out=held_out)
    initial = candidate.geometric_mean_speedup(INITIALISATION, held_out=held_out)
    return GateCheck(
        name=name,
        passed=trained >= minimum * initial,
        reason=(
            f"{name} speed-up over tuned Adam {trained:.2f}, its initialisation {initial:.2f} "
            f"(geometric means over {num_tasks} tasks; ratio {trained / initial:.2f}, needed {minimum:.2f})"
        ),
    )


def _against_champion(
    candidate: EvaluationSummary, champion: EvaluationSummary | None, minimum: float
) -> GateCheck:
    name = "champion"
    if champion is None:
        return GateCheck(name=name, passed=True, reason="there is no champion yet")
    if {t.task for t in champion.tasks} != {t.task for t in candidate.tasks} or (
        champion.config != candidate.config
    ):
        return GateCheck(
            name=name,
            passed=False,
            reason="the champion was evaluated on other tasks or settings; evaluate both alike",
        )
    new, old = candidate.geometric_mean_speedup(CANDIDATE), champion.geometric_mean_speedup(CANDIDATE)
    return GateCheck(
        name=name,
        passed=new >= minimum * old,
        reason=f"speed-up {new:.2f} against the champion's {old:.2f} (ratio needed {minimum:.2f})",
    )
