"""Validations that run among other units: each of one theta, complete when all tasks' losses are in.

They are of the phase's first tasks, also where re-sampling has put others in their places since: only losses of the
same tasks compare. A task that cannot be measured is left out of this and all later ones.
"""

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
    inner_steps: list[float]

    @property
    def per_task(self) -> tuple[float, ...]:
        """The losses in the tasks' order."""
        return tuple(self.losses[task] for task in sorted(self.losses))

    @property
    def meta_loss(self) -> float:
        """Their mean; NaN where every task failed."""
        return float(np.mean(self.per_task)) if self.losses else float("nan")


class RunningValidations:
    """Those that have begun and not ended, the oldest first.

    Args:
      num_tasks: Of the phase.
      max_tries: Failures in a row that leave a task out.
    """

    def __init__(self, num_tasks: int, max_tries: int) -> None:
        self._running: dict[int, RunningValidation] = {}
        self._max_tries, self._failures = max_tries, [0] * num_tasks

    def __len__(self) -> int:
        return len(self._running)

    @property
    def tasks(self) -> list[int]:
        """Those that have not been left out."""
        return [task for task, failures in enumerate(self._failures) if failures < self._max_tries]

    def begin(self, outer_step: int, theta: Theta, costs: Sequence[float] | None = None) -> None:
        """Begins one; what is expected to cost most, of all tasks of the phase, is sent first."""
        left = self.tasks if costs is None else sorted(self.tasks, key=lambda task: -costs[task])
        self._running[outer_step] = RunningValidation(outer_step, theta, left, {}, [])

    def next_unit(self) -> tuple[RunningValidation, int] | None:
        """Returns a task that is to be sent, which then counts as sent; None if there is none."""
        for validation in self._running.values():
            if validation.left:
                return validation, validation.left.pop(0)
        return None

    def take(self, outer_step: int, task: int, loss: float, inner_steps: float) -> None:
        """Takes in a loss, and what it cost; one of a task that was left out meanwhile does not count."""
        self._running[outer_step].inner_steps.append(inner_steps)
        if self._failures[task] < self._max_tries:
            self._failures[task] = 0
            self._running[outer_step].losses[task] = loss

    def failed(self, outer_step: int, task: int, *, counts: bool) -> None:
        """Puts a task back that has to be sent again, unless it has failed too often in a row."""
        self._failures[task] += counts
        if self._failures[task] < self._max_tries:
            self._running[outer_step].left.append(task)
        else:
            self.leave_out(task)

    def leave_out(self, task: int) -> None:
        """Leaves a task out, of those that have begun too."""
        self._failures[task] = self._max_tries
        for validation in self._running.values():
            if task in validation.left:
                validation.left.remove(task)

    def ended(self, in_flight: Collection[int]) -> Iterator[RunningValidation]:
        """Yields those that are complete, in order; `in_flight` has the outer steps of units still out."""
        for outer_step, validation in list(self._running.items()):
            if validation.left or outer_step in in_flight:
                return
            yield self._running.pop(outer_step)
