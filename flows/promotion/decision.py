"""Deciding on a candidate: its evaluation against the champion's, under a gate, while nobody else decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from curriculum.gates import Gate, GateCheck
from curriculum.promotion import PromotionDecision, decide
from flows.errors import StepIncompleteError
from flows.evaluation.records import EvaluationRecord, find_evaluation
from flows.optimizer_reference import OptimizerReference, resolve_optimizer
from flows.promotion.history import PromotionEvent, made_champion
from flows.promotion.record import ChampionRecord, champion_record
from flows.session import Session
from storage.model_registry import CHAMPION, Expected, require_champion
from storage.registry_reading import DEFAULT_MODEL

OTHERWISE = (
    "the champion was evaluated on other tasks, or with other settings or seeds, than the candidate; "
    "run `keirin evaluate champion` with the candidate's --set, --budget, --horizon and --num-seeds"
)


def consider(
    candidate: OptimizerReference,
    evaluation: EvaluationRecord,
    gate: Gate,
    session: Session,
    *,
    register: Callable[[], int] | None = None,
    champion: Expected = None,
) -> PromotionEvent:
    """Decides on a candidate, and makes it the champion if every condition is met. Returns what was decided.

    A champion that asks again gets the decision that made it the champion; so does a candidate that was refused
    last, if nothing has changed. Who was rolled back isn't promoted again on the same tasks and settings.

    Args:
      candidate: Who asks.
      evaluation: What it rests on.
      gate: The conditions.
      session: Whose registry and record.
      register: Registers the candidate if it is to be promoted and has no version. Its refusal is not recorded.
      champion: The version that was evaluated for this, if any was; `ABSENT`: there was none.

    Raises:
      AliasMovedError: If another one is champion by now.
      StepIncompleteError: If the champion was never evaluated: nothing could be compared.
    """
    with champion_record(session) as record:
        before = session.registry.aliases(DEFAULT_MODEL).get(CHAMPION)
        require_champion(before, champion)
        current = None if before is None else resolve_optimizer(CHAMPION, session)
        if current is not None and current.fingerprint == candidate.fingerprint:
            session.reporter.line("decided before: it is the champion")
            return _made_before(candidate, before, record)
        alike = None if current is None else _evaluation_alike(current, evaluation, session)
        rolled_back = rolled_back_reason(record.events(), evaluation)
        if rolled_back is not None:
            decision = _refusal(gate, rolled_back)
        elif current is not None and alike is None:
            decision = _refusal(gate, OTHERWISE)
        else:
            decision = decide(evaluation.summary, None if alike is None else alike.summary, gate)
        version = candidate.version
        if version is None and decision.promote and register is not None:
            version = register()
        event = PromotionEvent(
            kind="promoted" if decision.promote else "refused",
            time=datetime.now(UTC),
            model=DEFAULT_MODEL,
            version=version,
            from_version=before,
            to_version=version if decision.promote else before,
            optimizer=candidate.fingerprint,
            gate=gate.name,
            gate_fingerprint=gate.fingerprint(),
            checks=decision.checks,
            evaluation=evaluation.fingerprint,
            settings=evaluation.settings,
            champion_evaluation="" if alike is None else alike.fingerprint,
        )
        return _recorded(event, record, session, evaluation, alike)


def _recorded(
    event: PromotionEvent,
    record: ChampionRecord,
    session: Session,
    evaluation: EvaluationRecord,
    alike: EvaluationRecord | None,
) -> PromotionEvent:
    if event.version is None:
        return event
    last = next(reversed(record.events()), None)
    if last is not None and last.is_repeated_by(event):
        session.reporter.line("decided before, on the same evaluations")
        return last
    return record.carry_out(event, candidate=evaluation, champion=alike)


def _evaluation_alike(
    champion: OptimizerReference, evaluation: EvaluationRecord, session: Session
) -> EvaluationRecord | None:
    """Returns the champion's evaluation on the candidate's tasks, settings, seeds; None if it has others only."""
    alike = find_evaluation(session.workspace, champion.fingerprint, settings=evaluation.settings)
    if alike is None and find_evaluation(session.workspace, champion.fingerprint) is None:
        raise StepIncompleteError(
            "the champion has no evaluation to compare with. Run `keirin evaluate champion`."
        )
    return alike


def rolled_back_reason(events: Sequence[PromotionEvent], evaluation: EvaluationRecord) -> str | None:
    """Returns why an optimizer may not be promoted again: somebody rolled it back, and nothing new is known of it.

    Args:
      events: The record, the oldest first.
      evaluation: What it asks with.
    """
    for place in range(len(events) - 1, -1, -1):
        event = events[place]
        if event.kind == "promoted" and event.rests_on(evaluation):
            return None  # since
        if event.kind != "rolled back":
            continue
        if event.optimizer == evaluation.optimizer:
            return None  # gone back to since
        made = _made_from(events[:place], event)
        if made is None or made.optimizer != evaluation.optimizer:
            continue
        if not any(each.kind == "promoted" and each.rests_on(evaluation) for each in events[:place]):
            return None  # it asks with something new
        why = f" ({event.reason})" if event.reason else ""
        return (
            f"version {made.version} was promoted on these tasks and settings, and has been rolled back{why}: "
            f"evaluate it on others, or go back to it with `keirin rollback --to {made.version}`"
        )
    return None


def _made_from(events: Sequence[PromotionEvent], rollback: PromotionEvent) -> PromotionEvent | None:
    """Returns the promotion of what was rolled back; None if it is not in the record."""
    if rollback.from_version is None:
        return None
    return made_champion(events, rollback.model, rollback.from_version)


def _refusal(gate: Gate, reason: str) -> PromotionDecision:
    check = GateCheck(name="champion", passed=False, reason=reason)
    return PromotionDecision(gate=gate.name, promote=False, checks=(check,))


def _made_before(
    candidate: OptimizerReference, champion: int | None, record: ChampionRecord
) -> PromotionEvent:
    """Returns the decision that made the champion, or, if none is recorded, that it is."""
    assert champion is not None  # it has the candidate's weights
    made = made_champion(record.events(), DEFAULT_MODEL, champion)
    if made is not None:
        return made
    check = GateCheck(name="champion", passed=True, reason="it is the champion already")
    return PromotionEvent(
        kind="promoted",
        time=datetime.now(UTC),
        model=DEFAULT_MODEL,
        version=champion,
        from_version=champion,
        to_version=champion,
        optimizer=candidate.fingerprint,
        checks=(check,),
    )
