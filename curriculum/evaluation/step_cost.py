"""What one step costs, gradient and update together, with each optimizer alone on its core.

Curves of an evaluation come from programs that train many runs together, fifteen rates here and two thetas there,
so the seconds of one program say little about those of another. Here every optimizer trains one run by itself; all
of a task's do so in turns, in one process, and the fastest of several rounds counts: what disturbs a run only adds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from curriculum.evaluation.curves import CurveUnit, prepare_curves


class CostUnit(NamedTuple):
    """Optimizers to time on one task."""

    task: str  # TaskConfig as JSON
    optimizers: tuple[str, ...]  # as in `CurveUnit`
    num_steps: int = 100
    num_rounds: int = 5


def run_cost_unit(
    unit: CostUnit, settings: Sequence[Any], clock: Callable[[], float] = time.perf_counter
) -> tuple[float, ...]:
    """Returns seconds per step of every optimizer.

    Args:
      unit: What to time.
      settings: One for each optimizer: a learning rate, or a theta.
      clock: Where seconds come from.
    """
    programs = [
        prepare_curves(
            CurveUnit(unit.task, optimizer, (0,), unit.num_steps, 2, unit.num_steps, num_eval_batches=1),
            [setting],
        )
        for optimizer, setting in zip(unit.optimizers, settings, strict=True)
    ]
    fastest = [float("inf")] * len(programs)
    for _ in range(
        unit.num_rounds + 1
    ):  # the first round of all warms up, and may stand if it is the fastest
        for number, program in enumerate(programs):
            start = clock()
            jax.block_until_ready(program())
            fastest[number] = min(fastest[number], clock() - start)
    return tuple(seconds / unit.num_steps for seconds in fastest)
