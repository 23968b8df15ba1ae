"""Which units an outer step or a validation is made of, and what each draws its randomness from."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import jax
import numpy as np

from curriculum.phase import Phase
from curriculum.transports import Transport, choose
from curriculum.worker import WorkUnit
from lopt.config import FrozenConfig
from lopt.outer_schedule import END_OF_SCHEDULE
from lopt.types import Theta
from task_generator.task_config import TaskConfig

TRAINING, VALIDATION, ASYNCHRONOUS = 0, 1, 2
"""Separate streams of randomness; a validation unit's stream does not depend on the outer step."""


def root_of(phase: Phase, seed: int) -> tuple[int, int]:
    """Returns what every stream of a phase's randomness begins with.

    The phases of one pipeline share its seed. With equal streams a phase would draw the directions of the one it
    starts from again, whose noise its start depends on.
    """
    return seed, zlib.crc32(phase.name.encode())


def work_units(
    estimator: FrozenConfig,
    tasks: Sequence[TaskConfig],
    optimizer: FrozenConfig,
    *,
    seed: tuple[int, ...],
    sigma: float | None = None,
    transport: str = "dense",
    outer_step: int = END_OF_SCHEDULE,
) -> list[WorkUnit]:
    """Returns one unit per task; unit i's randomness is `(*seed, i)`, its lengths are those of `outer_step`."""
    how, architecture = estimator.canonical_json(), optimizer.canonical_json()
    return [
        WorkUnit(task.canonical_json(), how, architecture, (*seed, index), sigma, transport, outer_step)
        for index, task in enumerate(tasks)
    ]


def transport_of(phase: Phase, theta: Theta) -> Transport:
    """Returns how the phase's meta-gradients travel, for a theta of this size."""
    num_numbers = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(theta))
    return choose(phase.transport, phase.estimator, phase.mode, num_numbers)
