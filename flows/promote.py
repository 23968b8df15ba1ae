"""Step 6: the gate. An optimizer that passes becomes `champion`; the reasons are stored either way."""

from __future__ import annotations

from prefect import flow

from flows.errors import StepIncompleteError
from flows.evaluation.records import find_evaluation
from flows.optimizer_reference import resolve_optimizer
from flows.parameters import PromoteParameters
from flows.prefect_artifacts import publish_markdown, publish_table
from flows.promotion.decision import consider
from flows.promotion.gate_files import read_gate
from flows.promotion.history import PromotionEvent
from flows.record import remember
from flows.reporting import PromotionReason, PromotionReport
from flows.session import Session, current_session
from storage.model_registry import CHAMPION


def run_promotion(parameters: PromoteParameters, session: Session) -> PromotionReport:
    """Decides, and moves the alias if the gate passes. Returns the decision with its reasons.

    Raises:
      StepIncompleteError: If the optimizer has not been evaluated, or is not registered.
    """
    gate = read_gate(parameters.gate)
    candidate = resolve_optimizer(parameters.optimizer, session)
    evaluation = find_evaluation(session.workspace, candidate.fingerprint)
    if candidate.version is None:
        raise StepIncompleteError(
            f"{parameters.optimizer!r} is not registered, and only registered versions can be promoted. Name an "
            "alias or models:/NAME/VERSION: `keirin status` lists them. `keirin follow --promote` registers what "
            "passes."
        )
    if evaluation is None:
        raise StepIncompleteError(
            f"{parameters.optimizer!r} has no evaluation to decide on. "
            f"Run `keirin evaluate {parameters.optimizer}`."
        )
    report = promotion_report(consider(candidate, evaluation, gate, session))
    remember_promotion(report, session)
    return report


def promotion_report(event: PromotionEvent) -> PromotionReport:
    """Returns what a report shows of a decision."""
    remark = (PromotionReason(text=event.reason),) if event.reason else ()
    return PromotionReport(
        promoted=event.kind == "promoted",
        alias=CHAMPION,
        version=None if event.version is None else str(event.version),
        previous=None if event.from_version is None else str(event.from_version),
        gate=event.gate,
        reasons=(
            *(PromotionReason(text=check.reason, passed=check.passed) for check in event.checks),
            *remark,
        ),
    )


def remember_promotion(report: PromotionReport, session: Session) -> None:
    """Makes a decision the one that the report shows."""
    remember(session.workspace, "promotion", {"report": report.model_dump(mode="json")})


@flow(name="promote", flow_run_name="{parameters.optimizer}")
def promote(parameters: PromoteParameters = PromoteParameters()) -> bool:
    """Makes an evaluated optimizer the champion if it passes the gate."""
    with current_session() as session:
        session.reporter.heading("promote")
        report = run_promotion(parameters, session)
        word = f"promoted to {report.alias!r}" if report.promoted else "not promoted"
        gate = f" (gate {report.gate!r})" if report.gate else ""
        session.reporter.line(f"version {report.version}: {word}{gate}")
        for reason in report.reasons:
            session.reporter.line(
                f"{'·' if reason.passed is None else '✓' if reason.passed else '✗'} {reason.text}"
            )
        rows = [reason.model_dump() for reason in report.reasons]
        publish_table("gate", rows, "The conditions, and how each came out.")
        publish_markdown("decision", f"Version {report.version}: **{word}**{gate}.")
        return report.promoted
