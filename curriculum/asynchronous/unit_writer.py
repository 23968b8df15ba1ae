"""What the units of an asynchronous run say: their tasks, estimator and optimizer as JSON, and their seeds."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from curriculum.asynchronous.errands import Errand
from curriculum.phase import Phase
from curriculum.units_of_work import ASYNCHRONOUS, VALIDATION, root_of
from curriculum.worker import AsyncUnit, WorkUnit
from lopt.config import FrozenConfig
from lopt.estimators import validation_estimator
from task_generator.task_config import TaskConfig


class UnitWriter:
    """Writes units, and knows which workers have trajectories of which tasks.

    Args:
      phase: Its estimator, and whose trajectories they are.
      tasks: The static configurations to begin with.
      optimizer: Architecture configuration of the learned optimizer.
      transport: Name of how gradients come back.
      seed: Of the phase.
      began_at: Outer step that the run begins at: one that goes on from a checkpoint draws other numbers.
      run: Whose trajectories they are: workers outlive a run, and have those of others.
    """

    def __init__(
        self,
        phase: Phase,
        tasks: Sequence[TaskConfig],
        optimizer: FrozenConfig,
        transport: str,
        *,
        seed: int,
        began_at: int,
        run: str,
    ) -> None:
        self._tasks = [task.canonical_json() for task in tasks]
        self._to_validate = tuple(self._tasks)
        self._optimizer, self._transport = optimizer.canonical_json(), transport
        self._how = phase.estimator.canonical_json()
        self._how_to_validate = validation_estimator(phase.estimator).canonical_json()
        self._is_stateless, self._run = phase.estimator.is_stateless, f"{run}-{phase.name}-{seed}-{began_at}"
        self._root, self._began_at = root_of(phase, seed), began_at
        self._known: set[tuple[str, int]] = set()

    def errand(self, worker: str, tasks: Sequence[int], tag: int, outer_step: int) -> Errand:
        """Returns one unit of each task, for that worker."""
        stream = (*self._root, ASYNCHRONOUS, self._began_at, tag)
        units = tuple(
            self._unit(worker, task, (*stream, number), outer_step) for number, task in enumerate(tasks)
        )
        return Errand(units, tuple(tasks), outer_step)

    def validation(self, task: int) -> WorkUnit:
        """Returns the unit that measures theta on the task that was first in this place, whatever is there now."""
        seed = (*self._root, VALIDATION, task)
        return WorkUnit(self._to_validate[task], self._how_to_validate, self._optimizer, seed, 0.0)

    def answered(self, worker: str, tasks: Sequence[int]) -> None:
        """Takes note that the worker has trajectories of these tasks, where the estimator has any."""
        if not self._is_stateless:
            self._known.update((worker, task) for task in tasks)

    def gone(self, workers: Collection[str]) -> None:
        """Forgets workers' trajectories."""
        self._known = {(worker, task) for worker, task in self._known if worker not in workers}

    def replaced(self, task: int, config: TaskConfig) -> None:
        """Puts another static configuration in a task's place."""
        self._tasks[task] = config.canonical_json()
        self._known = {(worker, other) for worker, other in self._known if other != task}

    def is_replaced(self, task: int) -> bool:
        """Whether another static configuration is in the place of the one that is validated."""
        return self._tasks[task] != self._to_validate[task]

    def _unit(self, worker: str, task: int, seed: tuple[int, ...], outer_step: int) -> WorkUnit | AsyncUnit:
        unit = WorkUnit(
            self._tasks[task], self._how, self._optimizer, seed, None, self._transport, outer_step
        )
        return unit if self._is_stateless else AsyncUnit(unit, self._run, (worker, task) in self._known)
