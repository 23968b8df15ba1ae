"""The evaluation sets: fixed tasks, by name, that optimizers are compared on."""

from __future__ import annotations

from lopt.registry import lookup
from task_generator.evaluation_demo import HELDOUT_DEMO, INDISTRIBUTION_DEMO
from task_generator.evaluation_embedded import EMBEDDED24
from task_generator.evaluation_task import EvaluationTask
from task_generator.velodrome import velodrome_sets

EVALUATION_SETS: dict[str, tuple[EvaluationTask, ...]] = {
    "heldout_demo": HELDOUT_DEMO,
    "indistribution_demo": INDISTRIBUTION_DEMO,
    "embedded24": EMBEDDED24,
    **velodrome_sets(),
}

SET_NOTES: dict[str, str] = {
    "heldout_demo": "Outside what the demo's phases train on, by width, depth, activation or kind.",
    "indistribution_demo": "Like what the demo's phases train on.",
    "embedded24": "A small task of every family, on data that need no download.",
    "velodrome83": "VeLO's main set: 84 candidates for the paper's 83. No published source says which one is "
    "not meant.",
    "velodrome109": "VeLO's whole set: 110 candidates for the paper's 109, with mixers, ES gradients and trained "
    "optimizers. Again one too many.",
    "fast67": "The 67 tasks that VeLO was continuously evaluated on, as published.",
}


def get_evaluation_set(name: str) -> tuple[EvaluationTask, ...]:
    """Returns the evaluation set called `name`.

    Raises:
      UnknownNameError: If there is none; says which there are, and the nearest.
    """
    return lookup(EVALUATION_SETS, name, kind="evaluation set")


__all__ = ["EVALUATION_SETS", "SET_NOTES", "EvaluationTask", "get_evaluation_set"]
