"""The evaluation sets: fixed tasks, by name, that optimizers are compared on."""

from __future__ import annotations

from lopt.registry import lookup
from task_generator.evaluation_demo import HELDOUT_DEMO, INDISTRIBUTION_DEMO
from task_generator.evaluation_task import EvaluationTask

EVALUATION_SETS: dict[str, tuple[EvaluationTask, ...]] = {
    "heldout_demo": HELDOUT_DEMO,
    "indistribution_demo": INDISTRIBUTION_DEMO,
}

SET_NOTES: dict[str, str] = {
    "heldout_demo": "Outside what the demo's phases train on, by width, depth, activation or kind.",
    "indistribution_demo": "Like what the demo's phases train on.",
}


def get_evaluation_set(name: str) -> tuple[EvaluationTask, ...]:
    """Returns the evaluation set called `name`.

    Raises:
      UnknownNameError: If there is none; says which there are, and the nearest.
    """
    return lookup(EVALUATION_SETS, name, kind="evaluation set")


__all__ = ["EVALUATION_SETS", "SET_NOTES", "EvaluationTask", "get_evaluation_set"]
