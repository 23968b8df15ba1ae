"""How large a unit of an evaluation is, and how long one may take before its worker is said to hang."""

from __future__ import annotations

import numpy as np

from task_generator.task_config import TaskConfig

STEPS_PER_UNIT = 200_000
"""Inner steps of all runs of a unit, unless one program has more: minutes of work, which is what an interrupted
evaluation may lose. Smaller units would build their programs more often."""
MAX_SETTINGS = 32
MAX_NUMBERS = 2e7
"""Parameters of all runs of a program together; optimizers keep a few numbers for each."""
PATIENCE = 1_800.0
SLOWEST_STEP = 0.1
SLOWEST_FLOPS = 1e9
"""Seconds of a step but for the task's operations, and how many of those a worker does in one: with LAMB one core
took a fortieth of that or less, on every task of `embedded24`. Workers that die are noticed at once."""


def settings_per_program(task: TaskConfig, num_seeds: int) -> int:
    """Returns how many settings one program trains together: as many as `MAX_NUMBERS` holds the parameters of."""
    num_params = max(task.approximate_cost()["num_params"], 1.0)
    return int(np.clip(MAX_NUMBERS / (num_params * num_seeds), 1, MAX_SETTINGS))


def settings_per_unit(task: TaskConfig, num_seeds: int, num_steps: int) -> int:
    """Returns how many settings a unit has at most: one program's, or more where runs are short."""
    return max(settings_per_program(task, num_seeds), STEPS_PER_UNIT // (num_seeds * num_steps))


def seconds_allowed(task: TaskConfig, num_runs: int, num_steps: int) -> float:
    """Returns after how many seconds a unit of `num_runs` runs hangs, rather than being slow."""
    step = SLOWEST_STEP + task.approximate_cost()["flops_per_step"] / SLOWEST_FLOPS
    return PATIENCE + num_runs * num_steps * step
