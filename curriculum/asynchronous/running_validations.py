"""Validations that run among other units: each of one theta, complete when all tasks' losses are in."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lopt.types import Theta


class RunningValidation(NamedTuple):
    """One theta, the tasks that are still to be sent, and the losses that have come."""

    outer_step: int
    theta: Theta
    left: list[int]
    losses: dict[int, float]

    @property
    def per_task(self) -> tuple[float, ...]:
        """The losses in the tasks' order."""
        return tuple(self.losses[task] for task in sorted(self.losses))

    @property
    def meta_loss(self) -> float:
        """Their mean; NaN where every task failed."""
        return float(np.mean(self.per_task)) if self.losses else float("nan")


class RunningValidations:
    """Those that have begun and not ended, the oldest first."""

    def __init__(self) -> None:
        self._running: dict[int, RunningValidation] = {}

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, outer_step: int, theta: Theta, tasks: Sequence[int]) -> None:
        """Begins one."""
        self._running[outer_step] = RunningValidation(outer_step, theta, list(tasks), {})

    def next_unit(self) -> tuple[RunningValidation, int] | None:
        """Returns a task that is to be sent, which then counts as sent; None if there is none."""
        for validation in self._running.values():
            if validation.left:
                return validation, validation.left.pop(0)
        return None

    def take(self, outer_step: int, task: int, loss: float) -> None:
        """Takes in a loss."""
        self._running[outer_step].losses[task] = loss

    def again(self, outer_step: int, task: int) -> None:
        """Puts a task back that has to be sent again."""
        self._running[outer_step].left.append(task)

    def ended(self, in_flight: Collection[int | None]) -> Iterator[RunningValidation]:
        """Yields those that are complete, in order; `in_flight` has the outer steps of units still out."""
        for outer_step, validation in list(self._running.items()):
            if validation.left or outer_step in in_flight:
                return
            yield self._running.pop(outer_step)
