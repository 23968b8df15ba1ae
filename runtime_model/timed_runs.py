"""Timed runs of a program whose number of steps is a run-time value, compared with the speed probes beside them.

The number of steps is chosen so that a run takes about `target_seconds`; what dispatching takes (a run of no steps)
is subtracted. Runs are taken in turns and each is divided by the probes before and after it, so that what else the
machine does does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import numpy as np

from runtime_model.machine import this_machine
from runtime_model.speed_probe import probe_seconds

Clock = Callable[[], float]
MAX_STEPS = 1_000_000
TRIALS = 3
LEAST_SECONDS = 1e-9


class Clocks(NamedTuple):
    """What runs are timed with; seconds, from any origin each."""

    wall: Clock
    cpu: Clock
    counts: Clock
    """The one of the two that the recorded seconds are of."""


def clocks_here(wall: Clock, cpu: Clock) -> Clocks:
    """Returns the clocks, the one that counts here among them."""
    # On one thread, what counts is processor time: while something else has the core, it stands still.
    on_one_thread = jax.default_backend() == "cpu" and this_machine().threads == 1
    return Clocks(wall, cpu, cpu if on_one_thread else wall)


class TimedProgram(Protocol):
    """A compiled loop."""

    @property
    def num_tasks(self) -> int:
        """Tasks that one step works on."""
        ...

    def seconds(self, repeat: int, num_steps: int, clock: Clock) -> float:
        """Returns the seconds that `num_steps` steps of `repeat`'s task take, dispatch included."""
        ...


class Runs(NamedTuple):
    """Timed runs; every array is [runs, repeats]."""

    relative: np.ndarray  # seconds per step and task, over the seconds of the probes beside the run
    probe: np.ndarray  # seconds
    cpu_share: np.ndarray
    num_steps: int  # of a run


def timed_runs(
    program: TimedProgram,
    clocks: Clocks,
    *,
    repeats: int,
    runs: int,
    target_seconds: float,
    num_steps: int | None = None,
) -> Runs:
    """Runs the program, which has run before.

    Args:
      program: What to run.
      clocks: What to time with.
      repeats: Tasks of the program, run in turns.
      runs: Runs of each.
      target_seconds: What a run should take.
      num_steps: Steps of a run; None: as `target_seconds` needs.
    """
    dispatch = min(program.seconds(0, 0, clocks.counts) for _ in range(TRIALS))
    steps = num_steps or _choose_steps(program, target_seconds, dispatch, clocks.counts)
    relative, probes, cpu_share = np.zeros((3, runs, repeats))
    for index in np.ndindex(runs, repeats):  # in turns: a slow moment hits each repeat once
        before = probe_seconds(clocks.counts)
        began, cpu_began = clocks.wall(), clocks.cpu()
        seconds = max(program.seconds(index[1], steps, clocks.counts) - dispatch, LEAST_SECONDS)
        cpu_seconds, wall = clocks.cpu() - cpu_began, clocks.wall() - began
        probe = (before + probe_seconds(clocks.counts)) / 2
        relative[index] = seconds / (steps * program.num_tasks) / probe
        probes[index], cpu_share[index] = probe, cpu_seconds / wall
    return Runs(relative, probes, cpu_share, steps)


def _choose_steps(program: TimedProgram, target_seconds: float, dispatch: float, counts: Clock) -> int:
    """Returns how many steps take about `target_seconds`, from trials long enough to measure.

    The fastest of several trials counts: taken for slow because of one busy moment, a program would be given so
    few steps that what is measured is its dispatch.
    """
    steps = 1
    while steps < MAX_STEPS:
        seconds = min(program.seconds(0, steps, counts) for _ in range(TRIALS)) - dispatch
        if seconds > target_seconds / 8:
            return max(1, min(MAX_STEPS, round(steps * target_seconds / seconds)))
        steps *= 4
    return MAX_STEPS
