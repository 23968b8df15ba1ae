"""Step 5: compare a learned optimizer with baselines tuned per task, on tasks that it was not trained on."""

from __future__ import annotations

from typing import Any

from prefect import flow
from rich.markup import escape

from curriculum.evaluation.summary import CANDIDATE, EvaluationConfig, EvaluationSummary
from flows.evaluation.clock import measured_on, with_step_costs
from flows.evaluation.curves import compute_curves, plan_jobs
from flows.evaluation.horizons import with_horizons
from flows.evaluation.records import record_evaluation
from flows.evaluation.report import build_report, build_summary
from flows.evaluation.settings import VERSION, evaluation_config, evaluation_spec, evaluation_tasks
from flows.optimizer_reference import OptimizerReference, resolve_optimizer
from flows.parameters import EvaluateParameters
from flows.prefect_artifacts import ProgressArtifact, publish_image, publish_markdown, publish_table
from flows.record import remember
from flows.report_data import collect
from flows.reporting import ReportData, evaluation_pictures, headline, task_rows
from flows.selection import lineage
from flows.session import Session, current_session
from lopt.use.loading import INITIAL
from lopt.use.shipped import is_weights_file
from task_generator.evaluation_set import EvaluationTask


def run_evaluation(parameters: EvaluateParameters, session: Session) -> tuple[EvaluationSummary, ReportData]:
    """Evaluates an optimizer unless that has been done. Returns the summary, and what a report shows of it.

    It is the report of this evaluation, also where another one ends, and is remembered, at the same time.
    """
    optimizer = resolve_optimizer(parameters.optimizer, session)
    tasks, config = evaluation_tasks(parameters), evaluation_config(parameters)
    spec = evaluation_spec(optimizer, tasks, config, clock=parameters.clock)
    done = session.artifacts.read(spec)
    if done is None:
        done = _evaluate(parameters, config, tasks, optimizer, session)
        session.artifacts.write(spec, done)
    else:
        session.reporter.line("evaluated before, with the same settings")
    done = with_horizons(done, tasks, optimizer, session.workspace)
    record_evaluation(session.workspace, optimizer.fingerprint, spec, done["summary"])
    # Promotions come later than evaluations: who the weights are is kept, and asked whenever they are reported.
    record = {
        "version": VERSION,
        "optimizer": parameters.optimizer,
        "lineage": lineage(parameters.optimizer, session),
        **done,
    }
    data = collect(session.workspace, evaluation=record)
    remember(session.workspace, "evaluation", {"headline": headline(data), **record})
    return EvaluationSummary.model_validate(done["summary"]), data


def _evaluate(
    parameters: EvaluateParameters,
    config: EvaluationConfig,
    tasks: list[EvaluationTask],
    optimizer: OptimizerReference,
    session: Session,
) -> dict[str, Any]:
    jobs = plan_jobs(tasks, optimizer, config)
    progress = ProgressArtifact("evaluation-progress", "Sets of learning curves computed.")
    curves = compute_curves(jobs, session, progress)
    summary = build_summary(tasks, curves.batches, config, optimizer.trained_on)
    if parameters.clock:
        summary = with_step_costs(summary, tasks, optimizer, session)
    report = build_report(
        tasks,
        curves,
        summary,
        trained_on=optimizer.trained_on,
        set_name=" + ".join(parameters.evaluation_sets),
        label=_label(optimizer),
    )
    report = report.model_copy(update={"remarks": (*report.remarks, *_unknown_start(optimizer))})
    return {
        "summary": summary.model_dump(mode="json"),
        "report": report.model_dump(mode="json"),
        "measured": measured_on(session),
    }


def _unknown_start(optimizer: OptimizerReference) -> tuple[str, ...]:
    if optimizer.initial_seed is not None:
        return ()
    return (
        "The file does not say which weights training started from: the row before training is that of seed 0.",
    )


def _label(optimizer: OptimizerReference) -> str:
    if is_weights_file(optimizer.ref) or optimizer.ref.startswith(INITIAL):
        return optimizer.ref
    architecture = optimizer.config()["architecture"]
    return f"{architecture} v{optimizer.version}" if optimizer.version is not None else str(architecture)


@flow(name="evaluate", flow_run_name="{parameters.optimizer}")
def evaluate(parameters: EvaluateParameters = EvaluateParameters()) -> dict[str, float]:
    """Compares a learned optimizer with tuned Adam and AdamW: learning curves, final losses, speed-ups."""
    with current_session() as session:
        session.reporter.heading("evaluate")
        summary, data = run_evaluation(parameters, session)
        session.reporter.line(headline(data))
        for remark in data.evaluation.remarks if data.evaluation else ():
            session.reporter.line(f"[red]{escape(remark)}[/red]")
        publish_table("evaluation", task_rows(data), "Every task, with the speed-up over tuned Adam.")
        publish_markdown("evaluation-result", headline(data))
        for picture in evaluation_pictures(data):
            publish_image(picture.name, picture.png, picture.caption)
        return {
            "held_out": summary.geometric_mean_speedup(CANDIDATE, held_out=True),
            "in_distribution": summary.geometric_mean_speedup(CANDIDATE, held_out=False),
        }
