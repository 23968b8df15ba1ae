"""What a step costs: optimizers in turns, the fastest round counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from curriculum.evaluation.curves import baseline_json
from curriculum.evaluation.step_cost import CostUnit, run_cost_unit
from task_generator.task_config import TaskConfig


def test_the_fastest_of_rounds_in_turns(tiny_tasks: tuple[TaskConfig, ...]) -> None:
    """Seconds of the two programs, round after round: (9, 9), (2, 5), (3, 4); of ten steps each."""

    def ticks() -> Iterator[float]:
        now = 0.0
        for seconds in (9.0, 9.0, 2.0, 5.0, 3.0, 4.0):
            yield now
            now += seconds
            yield now

    clock = ticks()
    unit = CostUnit(tiny_tasks[0].canonical_json(), (baseline_json("adam"), baseline_json("sgd")), 10, 2)
    assert run_cost_unit(unit, (1e-3, 1e-3), lambda: next(clock)) == pytest.approx((0.2, 0.4))
