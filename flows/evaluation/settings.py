"""From a form to what is compared with what: tasks, settings, and the identity of an evaluation."""

from __future__ import annotations

from typing import Any

from curriculum.evaluation.summary import EvaluationConfig
from flows.artifacts import ArtifactSpec
from flows.evaluation.versions import CURVES_VERSION, data_versions
from flows.optimizer_reference import OptimizerReference, optimizer_fingerprint
from flows.parameters import BaselinesParameters
from task_generator.evaluation_set import EvaluationTask, get_evaluation_set

VERSION = 8
"""6: speed-ups are of the mean loss over seeds, a seed's own are over the baseline tuned on all; normalised losses
are at the horizon. 7: those on other data are of the test split. 8: the interval over seeds is centred."""


def evaluation_tasks(parameters: BaselinesParameters) -> list[EvaluationTask]:
    """Returns the tasks to compare on, set after set; one that is in several counts once, where it is first.

    Raises:
      ValueError: If two tasks of one name are not the same: results are found by name.
    """
    by_fingerprint: dict[str, EvaluationTask] = {}
    by_name: dict[str, tuple[str, str]] = {}
    for set_name in map(str, parameters.evaluation_sets):
        for task in get_evaluation_set(set_name):
            fingerprint = task.config.fingerprint()
            if fingerprint in by_fingerprint:
                continue
            if task.name in by_name:
                first, one = by_name[task.name]
                raise ValueError(
                    f"`evaluation_sets` must not have two tasks of one name, got two different ones named "
                    f"{task.name!r}: {one} in {first!r} and {fingerprint} in {set_name!r}. Evaluate on one set "
                    "at a time, or rename one of the tasks."
                )
            by_fingerprint[fingerprint] = task
            by_name[task.name] = (set_name, fingerprint)
    return list(by_fingerprint.values())


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
            "trials": [list(trials) for trials in config.all_trials],
            "tasks": [task.config.fingerprint() for task in tasks],
            "data": data_versions(task.config for task in tasks),
            "curves": CURVES_VERSION,
            "trained_on": _domains(optimizer),
            "initialisation": optimizer_fingerprint(optimizer.architecture, optimizer.initial_theta),
            "clock": clock,
        },
        (optimizer.fingerprint,),
    )


def _domains(optimizer: OptimizerReference) -> list[dict[str, Any]] | None:
    if optimizer.trained_on is None:
        return None
    return [domain.model_dump(mode="json") for domain in optimizer.trained_on]
