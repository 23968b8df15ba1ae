"""Which task a worker shall do next: all tasks get equally many meta-gradients, however long theirs take.

A unit goes to the task with the fewest so far. Among tasks that are at most `SLACK` ahead of it one is preferred
whose program the worker has already, since compiling costs more than a unit. So no task's share depends on its
speed (VeLO, E.3), and each worker cycles through a few static configurations. What a unit is expected to take has
no say: whoever has room asks, so workers are equally busy whatever they hold, and no outer step waits for a
certain unit.

A task whose units fail `max_tries` times in a row is left out from then on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from curriculum.worker import MAX_COMPILED_PROGRAMS

SLACK = 2
"""Units that a task with a compiled program may be ahead of the one that is furthest behind."""


class Assignment:
    """Counts the units of every task and knows which worker has compiled what.

    Args:
      num_tasks: How many there are.
      max_tries: Failures in a row that end a task.
      programs_per_worker: Compiled programs that a worker keeps.
    """

    def __init__(
        self, num_tasks: int, *, max_tries: int = 3, programs_per_worker: int = MAX_COMPILED_PROGRAMS
    ) -> None:
        self.issued = [0] * num_tasks
        self.returned = [0] * num_tasks
        self._failures: list[list[str]] = [[] for _ in range(num_tasks)]
        self._max_tries, self._kept = max_tries, programs_per_worker
        self._compiled: dict[str, OrderedDict[int, None]] = {}
        self._homes = [0] * num_tasks
        self._suspects: set[int] = set()

    @property
    def active(self) -> list[int]:
        """The tasks that have not been left out."""
        return [task for task, failures in enumerate(self._failures) if len(failures) < self._max_tries]

    def reasons(self, task: int) -> list[str]:
        """Returns how a task's last units in a row failed."""
        return list(self._failures[task])

    def next(self, worker: str) -> int:
        """Returns the task of the worker's next unit, and counts it.

        Raises:
          ValueError: If every task has been left out.
        """
        active = self.active
        if not active:
            raise ValueError("every task has been left out")
        compiled = self._compiled.setdefault(worker, OrderedDict())
        least = min(self.issued[task] for task in active)
        near = [task for task in active if self.issued[task] <= least + SLACK and task in compiled]
        task = min(near or active, key=lambda t: (self.issued[t], self._homes[t], t))
        self._homes[task] += task not in compiled
        compiled[task] = None
        compiled.move_to_end(task)
        while len(compiled) > self._kept:
            self._homes[compiled.popitem(last=False)[0]] -= 1
        self.issued[task] += 1
        return task

    def next_group(self, worker: str, count: int) -> tuple[int, ...]:
        """Returns the tasks of the worker's next message: so many, or a single one that is suspected of failing."""
        tasks = [self.next(worker) for _ in range(count)]
        alone = next((task for task in tasks if task in self._suspects), None)
        if alone is None or count == 1:
            return tuple(tasks)
        tasks.remove(alone)
        for task in tasks:
            self.give_back(task)
        return (alone,)

    def suspect(self, tasks: Sequence[int]) -> None:
        """Takes note of tasks that failed together: one of them may be why."""
        self._suspects.update(tasks)

    def succeeded(self, task: int) -> None:
        """Counts a result."""
        self.returned[task] += 1
        self._failures[task].clear()
        self._suspects.discard(task)

    def failed(self, task: int, reason: str) -> bool:
        """Counts a failure; returns whether the task is left out because of it."""
        was_active = len(self._failures[task]) < self._max_tries
        self._failures[task].append(reason)
        return was_active and len(self._failures[task]) >= self._max_tries

    def give_back(self, task: int) -> None:
        """Counts a unit of the task as not issued: it gave no meta-gradient, and is owed another."""
        self.issued[task] -= 1

    def forget(self, gone: Sequence[str]) -> None:
        """Forgets what workers had compiled that are gone."""
        for worker in gone:
            for task in self._compiled.pop(worker, ()):
                self._homes[task] -= 1

    def replaced(self, task: int) -> None:
        """Forgets a task's programs and failures: another static configuration has its place."""
        for compiled in self._compiled.values():
            compiled.pop(task, None)
        self._homes[task] = 0
        self._failures[task].clear()
        self._suspects.discard(task)
