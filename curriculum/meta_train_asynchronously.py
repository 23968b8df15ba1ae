"""Asynchronous meta-training as a function: `meta_train` for workers that never wait (see `asynchronous.loop`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from curriculum.asynchronous.loop import AsynchronousLearner
from curriculum.control import ReadControl, no_control
from curriculum.events import LearnerEvent
from curriculum.learner import LearnerState
from curriculum.phase import Phase
from curriculum.work_stream import WorkStream
from lopt.config import FrozenConfig
from task_generator.task_config import TaskConfig


def meta_train_asynchronously(
    phase: Phase,
    tasks: Sequence[TaskConfig],
    optimizer: FrozenConfig,
    state: LearnerState,
    stream: WorkStream,
    *,
    seed: int,
    task_seconds: Sequence[float] | None = None,
    read_control: ReadControl = no_control,
    sample_task: Callable[[int], TaskConfig] | None = None,
    clock: Callable[[], float] = time.monotonic,
    run: str = "",
) -> Iterator[LearnerEvent]:
    """Yields events from `state` to the end of the phase.

    Args:
      phase: What to do; its batch size, staleness and limits count.
      tasks: The static configurations to begin with.
      optimizer: Architecture configuration of the learned optimizer.
      state: Where to start: `init_learner(…)` or a restored checkpoint.
      stream: Who computes.
      seed: Of the phase.
      task_seconds: Predicted seconds of a gradient step of each task: of a validation, what takes longest starts
        first. None: nothing is known.
      read_control: What a person wants now; asked before every round.
      sample_task: Draws the static configuration of that number, for `resample_probability`. None: no re-sampling.
      clock: Seconds, from any origin.
      run: Tells trajectories that workers keep from those of other runs.

    Raises:
      ValueError: If the number of tasks is not the phase's.
      NoWorkersError: If there is no worker for two minutes.
      AllTasksFailedError: If every task has failed too often.
    """
    if len(tasks) != phase.num_static_configs:
        raise ValueError(
            f"phase {phase.name!r} holds num_static_configs={phase.num_static_configs} tasks, got {len(tasks)}"
        )
    learner = AsynchronousLearner(
        phase,
        tasks,
        optimizer,
        state,
        stream,
        seed=seed,
        task_seconds=task_seconds,
        read_control=read_control,
        sample_task=sample_task,
        clock=clock,
        run=run,
    )
    yield from learner.events()
