"""What the units of an asynchronous run say: their tasks, estimator and optimizer as JSON, and their seeds."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from curriculum.asynchronous.errands import Errand
from curriculum.phase import Phase
from curriculum.units_of_work import ASYNCHRONOUS, VALIDATION
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
    ) -> None:
        self._tasks = [task.canonical_json() for task in tasks]
        self._optimizer, self._transport = optimizer.canonical_json(), transport
        self._how = phase.estimator.canonical_json()
        self._how_to_validate = validation_estimator(phase.estimator).canonical_json()
        self._is_stateless, self._run = phase.estimator.is_stateless, f"{phase.name}-{seed}"
        self._seed, self._began_at = seed, began_at
        self._known: set[tuple[str, int]] = set()

    def errand(self, worker: str, tasks: Sequence[int], tag: int, outer_step: int) -> Errand:
        """Returns one unit of each task, for that worker."""
        stream = (self._seed, ASYNCHRONOUS, self._began_at, tag)
        units = tuple(
            self._unit(worker, task, (*stream, number), outer_step) for number, task in enumerate(tasks)
        )
        return Errand(units, tuple(tasks), outer_step)

    def validation(self, task: int) -> WorkUnit:
        """Returns the unit that measures theta on a task."""
        seed = (self._seed, VALIDATION, task)
        return WorkUnit(self._tasks[task], self._how_to_validate, self._optimizer, seed, 0.0)

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

    def _unit(self, worker: str, task: int, seed: tuple[int, ...], outer_step: int) -> WorkUnit | AsyncUnit:
        unit = WorkUnit(
            self._tasks[task], self._how, self._optimizer, seed, None, self._transport, outer_step
        )
        return unit if self._is_stateless else AsyncUnit(unit, self._run, (worker, task) in self._known)
