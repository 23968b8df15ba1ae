"""Filling the curve store: the baselines' curves, which every later evaluation on the same tasks finds computed."""

from __future__ import annotations

from prefect import flow

from flows.evaluation.curves import compute_curves, plan_baselines
from flows.evaluation.settings import evaluation_config, evaluation_tasks
from flows.parameters import BaselinesParameters
from flows.prefect_artifacts import ProgressArtifact, publish_table
from flows.reporting.formatting import count_text, plural
from flows.session import Session, current_session
from lopt.baselines import BASELINES


def run_baselines(parameters: BaselinesParameters, session: Session) -> list[dict[str, object]]:
    """Computes what is not stored. Returns a row per baseline: how many curves, and how fast they were."""
    tasks, config = evaluation_tasks(parameters), evaluation_config(parameters)
    progress = ProgressArtifact("baselines-progress", "Sets of learning curves computed.")
    batches = compute_curves(plan_baselines(tasks, config), session, progress).batches
    rows = []
    for trials in config.all_trials:
        costs = [batches[task.name, trials.baseline].seconds_per_step for task in tasks]
        rows.append(
            {
                "baseline": BASELINES[trials.baseline].label,
                "tasks": len(tasks),
                "trials": trials.num_trials,
                "seeds": config.num_seeds,
                "microseconds per step": round(1e6 * sum(costs) / len(costs), 1),
            }
        )
    return rows


@flow(name="baselines")
def compute_baselines(parameters: BaselinesParameters = BaselinesParameters()) -> int:
    """Computes the baselines' learning curves once; returns how many there are."""
    with current_session() as session:
        session.reporter.heading("baselines")
        rows = run_baselines(parameters, session)
        publish_table("baselines", rows, "Curves that evaluations find computed.")
        config = evaluation_config(parameters)
        tasks = len(evaluation_tasks(parameters))
        count = tasks * config.num_seeds * sum(int(str(row["trials"])) for row in rows)
        session.reporter.line(
            f"{count_text(count)} curves are stored: {plural(len(rows), 'baseline')}, {plural(tasks, 'task')}, "
            f"{plural(config.num_seeds, 'seed')}, {count_text(config.horizon)} steps"
        )
        return count
