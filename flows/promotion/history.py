"""What happened to the champion, and why: entries of the record of promotions, for code and for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import ConfigDict, Field
from rich.table import Table
from rich.text import Text

from curriculum.gates import GateCheck
from flows.evaluation.records import EvaluationRecord
from lopt.config import FrozenConfig
from storage.promotion_log import PromotionLog
from storage.workspace import Workspace

Kind = Literal["promoted", "refused", "rolled back"]
_STYLES = {"promoted": "green", "refused": "red", "rolled back": "yellow"}


class PromotionEvent(FrozenConfig):
    """One decision on who is champion, and what it rests on."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    kind: Kind
    time: datetime
    model: str
    version: int | None
    """The candidate, or the version that was rolled back to; None: a refused checkpoint that isn't registered."""
    from_version: int | None
    """The champion before."""
    to_version: int | None
    """The champion after; the one before, if the candidate was refused."""
    optimizer: str = ""
    """Fingerprint of the candidate's architecture and weights."""
    gate: str = ""
    gate_fingerprint: str = ""
    checks: tuple[GateCheck, ...] = ()
    reason: str = ""
    """Why somebody rolled back, in their words."""
    evaluation: str = ""
    """Fingerprint of the candidate's evaluation, that of its artifact."""
    settings: str = ""
    """Fingerprint of what it was evaluated on, and how: the tasks and settings that comparisons share, the clock no
    part of them. Empty in entries of earlier versions."""
    champion_evaluation: str = ""
    """The same of the champion it was compared with."""
    run_id: str = ""
    """MLflow's run with the decision and both evaluations."""

    def is_repeated_by(self, other: PromotionEvent) -> bool:
        """Whether `other` is the same decision on the same evidence."""
        names = {"kind", "model", "version", "gate_fingerprint", "evaluation", "champion_evaluation"}
        return self.kind == other.kind == "refused" and all(
            getattr(self, n) == getattr(other, n) for n in names
        )

    def rests_on(self, evaluation: EvaluationRecord) -> bool:
        """Whether it was decided on this optimizer, evaluated on these tasks with these settings."""
        same = (
            self.settings == evaluation.settings
            if self.settings
            else self.evaluation == evaluation.fingerprint  # an entry of an earlier version
        )
        return same and self.optimizer == evaluation.optimizer


class NumberedEvent(FrozenConfig):
    """An event with its place in the record; no number while it is being carried out."""

    number: int | None = Field(ge=1)
    event: PromotionEvent


def read_history(workspace: Workspace) -> list[NumberedEvent]:
    """Returns the record of promotions, the oldest first; what is being carried out right now is last."""
    log = PromotionLog(workspace)
    events = [
        NumberedEvent(number=number, event=PromotionEvent.model_validate(entry))
        for number, entry in enumerate(log.entries(), start=1)
    ]
    pending = log.pending()
    if pending is not None:
        events.append(NumberedEvent(number=None, event=PromotionEvent.model_validate(pending)))
    return events


def made_champion(events: Sequence[PromotionEvent], model: str, version: int) -> PromotionEvent | None:
    """Returns the latest promotion of that version, or None."""
    for event in reversed(events):
        if (event.kind, event.model, event.version) == ("promoted", model, version):
            return event
    return None


def past_champions(events: Sequence[PromotionEvent], model: str) -> list[int]:
    """Returns every version that has been champion, in order of its first time."""
    versions = [
        v for e in events if e.model == model for v in (e.from_version, e.to_version) if v is not None
    ]
    return list(dict.fromkeys(versions))


def history_table(events: Sequence[NumberedEvent]) -> Table:
    """Returns the record as a table: one row per decision, with every reason."""
    table = Table(title="Promotions", title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("#", justify="right")
    for name in ("when (UTC)", "what", "champion", "gate"):
        table.add_column(name, no_wrap=True)
    table.add_column("why", ratio=1)
    for numbered in events:
        event = numbered.event
        when = event.time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        what = Text(f"{event.kind} {event.version}", style=_STYLES[event.kind])
        number = "…" if numbered.number is None else str(numbered.number)
        table.add_row(number, when, what, _champions(event), event.gate or "–", _why(event))
    return table


def _champions(event: PromotionEvent) -> str:
    before = "none" if event.from_version is None else str(event.from_version)
    after = "none" if event.to_version is None else str(event.to_version)
    return before if event.kind == "refused" else f"{before} → {after}"


def _why(event: PromotionEvent) -> Text:
    lines = [f"{'✓' if check.passed else '✗'} {check.reason}" for check in event.checks]
    lines += [event.reason] if event.reason else []
    if event.run_id:
        lines.append(f"evaluation {event.evaluation or '–'}, MLflow run {event.run_id}")
    return Text("\n".join(lines))
