"""The whole story in one screen: sample, time, fit, every phase, evaluate, promote, report."""

from __future__ import annotations

from typing import Any

from prefect import flow

from curriculum.phases import get_curriculum
from flows.evaluate import evaluate
from flows.fit_runtime_model import fit_runtime_model
from flows.meta_train_phase import meta_train_phase
from flows.parameters import (
    EvaluateParameters,
    FitParameters,
    PipelineParameters,
    PromoteParameters,
    ReportParameters,
    TimeParameters,
    TrainParameters,
)
from flows.promote import promote
from flows.record import stage
from flows.report import report
from flows.session import current_session
from flows.time_tasks import time_tasks

REFIT_GROWTH = 0.25
"""The run-time model is fitted again when a quarter more timings have come in: another model draws other tasks."""
NORMALIZER_FACTOR = 5
"""Half of what `keirin evaluate` has, so that the demo takes no longer than it says."""


@flow(name="pipeline", flow_run_name="{parameters.curriculum}")
def pipeline(parameters: PipelineParameters = PipelineParameters()) -> dict[str, Any]:
    """Runs every step in order. What is complete is skipped, so a run that was stopped continues."""
    with current_session() as session:
        sample = {
            "distribution": parameters.distribution,
            "count": parameters.count,
            "seed": parameters.seed,
        }
        with stage(session.workspace, "sample and time"):
            time_tasks(TimeParameters(**sample))
        with stage(session.workspace, "fit"):
            fit_runtime_model(FitParameters(fit_seed=parameters.seed, min_growth=REFIT_GROWTH))
            session.release_memory()
        for phase in get_curriculum(parameters.curriculum):
            with stage(session.workspace, f"train {phase.name}"):
                meta_train_phase(
                    TrainParameters(
                        curriculum=parameters.curriculum,
                        phase=phase.name,
                        architecture=parameters.architecture,
                        architecture_config=parameters.architecture_config,
                        seed=parameters.seed,
                        outer_steps=parameters.outer_steps,
                    )
                )
                session.release_memory()
        with stage(session.workspace, "evaluate"):
            speedups = evaluate(
                EvaluateParameters(
                    horizon=parameters.horizon,
                    num_seeds=parameters.num_seeds,
                    normalizer_factor=NORMALIZER_FACTOR,
                )
            )
        with stage(session.workspace, "promote"):
            promoted = promote(PromoteParameters())
        page = report(ReportParameters())
        return {"promoted": promoted, "report": page, **speedups}
