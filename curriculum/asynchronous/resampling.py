"""Now and then a task's place is given to a newly drawn one (VeLO, E.3)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from task_generator.task_config import TaskConfig


class Resampler:
    """Decides when, and draws what.

    Args:
      sample_task: Draws the static configuration of that number; None: never.
      probability: After a unit.
      seed: Of the phase.
      num_tasks: Numbers that the phase's first tasks have taken.
      began_at: Outer step that the run begins at: one that goes on from a checkpoint draws other tasks.
    """

    def __init__(
        self,
        sample_task: Callable[[int], TaskConfig] | None,
        probability: float,
        *,
        seed: int,
        num_tasks: int,
        began_at: int,
    ) -> None:
        self._sample_task, self._probability = sample_task, probability
        self._root, self._first = [seed, began_at], num_tasks + (began_at << 32)
        self.count = 0

    def draw(self, tag: int, task: int) -> TaskConfig | None:
        """Returns what takes the task's place after that unit; None: it keeps it."""
        if self._sample_task is None or not self._probability:
            return None
        rng = np.random.default_rng(np.random.SeedSequence([*self._root, tag, task]))
        if rng.random() >= self._probability:
            return None
        self.count += 1
        return self._sample_task(self._first + self.count - 1)
