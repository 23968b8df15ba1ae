"""Step 6: the gate. An optimizer that passes becomes `champion`; the reasons are stored either way."""

from __future__ import annotations

from prefect import flow

from curriculum.promotion import GateConfig, PromotionDecision, decide
from flows.errors import StepIncompleteError
from flows.evaluate import stored_summary
from flows.optimizer_reference import OptimizerReference, resolve_optimizer
from flows.parameters import PromoteParameters
from flows.prefect_artifacts import publish_markdown, publish_table
from flows.record import recall, remember
from flows.reporting import PromotionReason, PromotionReport
from flows.session import Session, current_session
from storage.model_registry import CHAMPION
from storage.registry_reading import DEFAULT_MODEL


def run_promotion(parameters: PromoteParameters, session: Session) -> PromotionReport:
    """Decides, and moves the alias if the gate passes. Returns the decision with its reasons.

    Raises:
      StepIncompleteError: If the optimizer has not been evaluated, or is not registered.
    """
    candidate = resolve_optimizer(parameters.optimizer, session)
    summary = stored_summary(candidate, session)
    if summary is None or candidate.version is None:
        raise StepIncompleteError(
            f"{parameters.optimizer!r} has no evaluation to decide on. "
            f"Run `keirin evaluate {parameters.optimizer}`."
        )
    previous = session.registry.aliases(DEFAULT_MODEL).get(CHAMPION)
    champion = _champion(previous, session)
    if champion is not None and champion.fingerprint == candidate.fingerprint:
        return _again(candidate, session)
    decision = decide(summary, None if champion is None else stored_summary(champion, session), GateConfig())
    if decision.promote:
        session.registry.promote(DEFAULT_MODEL, candidate.version)
    report = _report(decision, candidate, previous)
    _remember(report, candidate, session)
    return report


def _champion(version: int | None, session: Session) -> OptimizerReference | None:
    """Returns the present champion, if there is one.

    Raises:
      StepIncompleteError: If it was never evaluated: nothing could be compared.
    """
    if version is None:
        return None
    champion = resolve_optimizer(CHAMPION, session)
    if stored_summary(champion, session) is None:
        raise StepIncompleteError(
            "the champion has no evaluation to compare with. Run `keirin evaluate champion`."
        )
    return champion


def _again(candidate: OptimizerReference, session: Session) -> PromotionReport:
    """Returns the decision that made the candidate the champion it is."""
    stored = recall(session.workspace, "promotion")
    if stored is not None and stored["fingerprint"] == candidate.fingerprint:
        session.reporter.line("decided before")
        return PromotionReport.model_validate(stored["report"])
    reason = PromotionReason(text="it is the champion already")
    report = PromotionReport(promoted=True, version=str(candidate.version), reasons=(reason,))
    _remember(report, candidate, session)
    return report


def _report(
    decision: PromotionDecision, candidate: OptimizerReference, previous: int | None
) -> PromotionReport:
    return PromotionReport(
        promoted=decision.promote,
        alias=CHAMPION,
        version=str(candidate.version),
        previous=None if previous is None else str(previous),
        reasons=tuple(PromotionReason(text=check.reason, passed=check.passed) for check in decision.checks),
    )


def _remember(report: PromotionReport, candidate: OptimizerReference, session: Session) -> None:
    value = {"fingerprint": candidate.fingerprint, "report": report.model_dump(mode="json")}
    remember(session.workspace, "promotion", value)


@flow(name="promote", flow_run_name="{parameters.optimizer}")
def promote(parameters: PromoteParameters = PromoteParameters()) -> bool:
    """Makes an evaluated optimizer the champion if it passes the gate."""
    with current_session() as session:
        session.reporter.heading("promote")
        report = run_promotion(parameters, session)
        word = f"promoted to {report.alias!r}" if report.promoted else "not promoted"
        session.reporter.line(f"version {report.version}: {word}")
        for reason in report.reasons:
            session.reporter.line(
                f"{'·' if reason.passed is None else '✓' if reason.passed else '✗'} {reason.text}"
            )
        rows = [reason.model_dump() for reason in report.reasons]
        publish_table("gate", rows, "The conditions, and how each came out.")
        publish_markdown("decision", f"Version {report.version}: **{word}**.")
        return report.promoted
