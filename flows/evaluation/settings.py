"""From a form to what is compared with what: tasks, settings, and the identity of an evaluation."""

from __future__ import annotations

from typing import Any

from curriculum.evaluation.summary import EvaluationConfig
from flows.artifacts import ArtifactSpec
from flows.optimizer_reference import OptimizerReference
from flows.parameters import BaselinesParameters
from task_generator.evaluation_set import EvaluationTask, get_evaluation_set

VERSION = 3


def evaluation_tasks(parameters: BaselinesParameters) -> list[EvaluationTask]:
    """Returns the tasks to compare on, set after set."""
    return [task for name in parameters.evaluation_sets for task in get_evaluation_set(name)]


def evaluation_config(parameters: BaselinesParameters) -> EvaluationConfig:
    """Returns how to compare."""
    return EvaluationConfig(
        horizon=parameters.horizon,
        num_seeds=parameters.num_seeds,
        normalizer=parameters.normalizer,
        normalizer_factor=parameters.normalizer_factor,
        baselines=tuple(str(name) for name in parameters.baselines),
    )


def evaluation_spec(
    optimizer: OptimizerReference, tasks: list[EvaluationTask], config: EvaluationConfig, *, clock: bool
) -> ArtifactSpec:
    """Returns the identity of an evaluation: whose, on what, and how."""
    return ArtifactSpec(
        "evaluation",
        VERSION,
        {
            "config": config.model_dump(mode="json"),
            "trials": [list(trials) for trials in config.trials],
            "tasks": [task.config.fingerprint() for task in tasks],
            "trained_on": _domains(optimizer),
            "clock": clock,
        },
        (optimizer.fingerprint,),
    )


def _domains(optimizer: OptimizerReference) -> list[dict[str, Any]] | None:
    if optimizer.trained_on is None:
        return None
    return [domain.model_dump(mode="json") for domain in optimizer.trained_on]
