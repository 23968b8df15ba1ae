"""Going back to an earlier champion: verified first, recorded like a promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from prefect import flow

from flows.errors import StepIncompleteError
from flows.parameters import RollbackParameters
from flows.prefect_artifacts import publish_markdown
from flows.promote import promotion_report, remember_promotion
from flows.promotion.history import PromotionEvent, made_champion, past_champions
from flows.promotion.record import champion_record
from flows.session import Session, current_session
from storage.errors import AliasNotFoundError, CorruptCheckpointError
from storage.model_registry import CHAMPION, PREVIOUS_CHAMPION
from storage.registry_reading import DEFAULT_MODEL


def run_rollback(parameters: RollbackParameters, session: Session) -> PromotionEvent:
    """Makes an earlier champion the champion again. Returns what was recorded.

    Without a version it is the one before the champion's own promotion: repeated, it goes back one by one.

    Raises:
      StepIncompleteError: If there is no champion, or none before it.
      AliasNotFoundError: If the version was never champion.
      CorruptCheckpointError: If it is damaged; says which others are good.
    """
    with champion_record(session) as record:
        aliases = session.registry.aliases(DEFAULT_MODEL)
        champion = aliases.get(CHAMPION)
        if champion is None:
            raise StepIncompleteError("there is no champion to roll back from. Run `keirin promote` first.")
        events = record.events()
        target = parameters.to or _before(champion, events, aliases)
        _check_target(target, champion, _known(events, aliases), session)
        made = made_champion(events, DEFAULT_MODEL, target)
        event = record.carry_out(
            PromotionEvent(
                kind="rolled back",
                time=datetime.now(UTC),
                model=DEFAULT_MODEL,
                version=target,
                from_version=champion,
                to_version=target,
                optimizer="" if made is None else made.optimizer,
                evaluation="" if made is None else made.evaluation,
                reason=parameters.reason,
            )
        )
    remark = f"version {champion} was rolled back to version {target}"
    report = promotion_report(event.model_copy(update={"reason": _join(remark, event.reason)}))
    remember_promotion(report.model_copy(update={"version": str(champion), "previous": str(target)}), session)
    return event


def _before(champion: int, events: Sequence[PromotionEvent], aliases: Mapping[str, int]) -> int:
    """Returns the version that was champion before `champion` was promoted."""
    made = made_champion(events, DEFAULT_MODEL, champion)
    before = aliases.get(PREVIOUS_CHAMPION) if made is None else made.from_version
    if before is None or before == champion:
        raise StepIncompleteError(
            f"version {champion} is the first champion: there is none before it to roll back to."
        )
    return before


def _known(events: Sequence[PromotionEvent], aliases: Mapping[str, int]) -> list[int]:
    """Returns the versions that have been champion, those of before the record included."""
    current = [aliases[name] for name in (PREVIOUS_CHAMPION, CHAMPION) if name in aliases]
    return sorted({*past_champions(events, DEFAULT_MODEL), *current})


def _check_target(target: int, champion: int, known: Sequence[int], session: Session) -> None:
    others = [version for version in known if version != champion]
    if target == champion:
        raise StepIncompleteError(f"version {target} is the champion already: there is nothing to roll back.")
    if target not in known:
        raise AliasNotFoundError(
            f"version {target} was never champion; those that were: {_listed(others)}. "
            f"A version that wasn't has to pass a gate: `keirin promote models:/{DEFAULT_MODEL}/{target}`."
        )
    if not session.registry.is_good(DEFAULT_MODEL, target):
        good = [v for v in others if v != target and session.registry.is_good(DEFAULT_MODEL, v)]
        way_out = f" Undamaged: {_listed(good)}; choose one with `--to`." if good else ""
        raise CorruptCheckpointError(
            f"version {target} is damaged or gone: the champion stays version {champion}.{way_out}"
        )


def _listed(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions)) or "none"


def _join(remark: str, reason: str) -> str:
    return f"{remark}: {reason}" if reason else remark


@flow(name="rollback", flow_run_name="to-{parameters.to}")
def rollback(parameters: RollbackParameters = RollbackParameters()) -> int:
    """Makes the champion before this one, or a given earlier one, the champion again. Returns its version."""
    with current_session() as session:
        session.reporter.heading("rollback")
        event = run_rollback(parameters, session)
        text = _join(f"champion: version {event.from_version} → {event.to_version}", event.reason)
        session.reporter.line(text)
        publish_markdown("rollback", text)
        assert event.version is not None
        return event.version
