"""Deciding on the champion and moving it, one process at a time, with everything the decision rests on stored.

The order is: the evidence goes into MLflow (a run with the decision and both evaluations, tags on the version);
what is going to be done is written down; the alias moves; the note becomes an entry of the record. The champion
is read, the decision is made and the alias is moved while one lock is held, so of two promotions at the same
moment the second is decided against the first one's result, and both are in the record. The alias moves only if
the champion still is the one that was decided against: MLflow's own pages know nothing of the lock.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from flows.evaluation.records import EvaluationRecord
from flows.promotion.history import PromotionEvent
from flows.session import Session
from storage.errors import StorageError
from storage.model_registry import ABSENT
from storage.promotion_log import PromotionLog
from storage.tracking import Run

CHAMPION_TAG, DECISION_TAG, EVALUATION_TAG = "keirin.champion", "keirin.decision", "keirin.evaluation"


class ChampionRecord:
    """The record of promotions, while it is held.

    Args:
      session: Whose registry and tracker.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._log = PromotionLog(session.workspace)

    def events(self) -> list[PromotionEvent]:
        """Returns what has happened, the oldest first."""
        return [PromotionEvent.model_validate(entry) for entry in self._log.entries()]

    def carry_out(self, event: PromotionEvent, **evidence: EvaluationRecord | None) -> PromotionEvent:
        """Stores the evidence, moves the champion as the event says, and records it. Returns the event as recorded.

        Args:
          event: What to do.
          **evidence: Evaluations that it rests on, by what they are of.
        """
        tags = {
            "keirin.step": event.kind,
            "keirin.version": str(event.version),
            CHAMPION_TAG: f"{event.from_version} -> {event.to_version}",
            EVALUATION_TAG: event.evaluation,
        }
        params = {"gate": event.gate, "version": event.version, "champion": event.from_version}
        run = self._session.tracker.start_run(f"{event.kind} {event.version}", tags=tags, params=params)
        event = event.model_copy(update={"run_id": run.run_id})
        try:
            self._store_evidence(
                event, {n: record for n, record in evidence.items() if record is not None}, run
            )
            self._log.append(event.model_dump(mode="json"), _mover(self._session))
        except BaseException:
            run.end("FAILED")  # a run that is neither finished nor failed is one whose process was killed
            raise
        run.end()
        return event

    def _store_evidence(self, event: PromotionEvent, evidence: dict[str, EvaluationRecord], run: Run) -> None:
        """Stores the decision with its evidence in MLflow's run, and links the version to it."""
        run.log_text(event.model_dump_json(indent=1), "decision.json")
        for name, record in evidence.items():
            summary = record.summary.model_dump(mode="json")
            document = {"fingerprint": record.fingerprint, "settings": record.settings, "summary": summary}
            run.log_text(json.dumps(document, indent=1), f"{name}_evaluation.json")
        assert event.version is not None  # only a refusal that isn't recorded has none
        links = {DECISION_TAG: run.run_id, EVALUATION_TAG: event.evaluation}
        self._session.registry.tag_version(event.model, event.version, links)


@contextlib.contextmanager
def champion_record(session: Session) -> Iterator[ChampionRecord]:
    """Holds the record of promotions: until the context ends no other process decides on the champion."""
    move = _mover(session)

    def finish(entry: dict[str, Any]) -> None:
        move(entry)
        with contextlib.suppress(StorageError):  # the tracking database is a newer one
            session.tracker.resume_run(str(entry["run_id"])).end()

    with PromotionLog(session.workspace).exclusive(finish):
        yield ChampionRecord(session)


def _mover(session: Session) -> Callable[[dict[str, Any]], None]:
    def move(entry: dict[str, Any]) -> None:
        event = PromotionEvent.model_validate(entry)
        if event.to_version is not None and event.to_version != event.from_version:
            expected = ABSENT if event.from_version is None else event.from_version
            session.registry.promote(event.model, event.to_version, expected=expected)

    return move
