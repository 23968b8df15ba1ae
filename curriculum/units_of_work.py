"""Which units an outer step or a validation is made of, and what each draws its randomness from."""

from __future__ import annotations

from collections.abc import Sequence

from curriculum.worker import WorkUnit
from lopt.config import FrozenConfig
from lopt.outer_schedule import END_OF_SCHEDULE
from task_generator.task_config import TaskConfig

TRAINING, VALIDATION, ASYNCHRONOUS = 0, 1, 2
"""Separate streams of randomness; a validation unit's stream does not depend on the outer step."""


def work_units(
    estimator: FrozenConfig,
    tasks: Sequence[TaskConfig],
    optimizer: FrozenConfig,
    *,
    seed: tuple[int, ...],
    sigma: float | None = None,
    outer_step: int = END_OF_SCHEDULE,
) -> list[WorkUnit]:
    """Returns one unit per task; unit i's randomness is `(*seed, i)`, its lengths are those of `outer_step`."""
    how, architecture = estimator.canonical_json(), optimizer.canonical_json()
    return [
        WorkUnit(task.canonical_json(), how, architecture, (*seed, index), sigma, outer_step)
        for index, task in enumerate(tasks)
    ]
