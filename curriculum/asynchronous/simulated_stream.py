"""Workers that only pretend: a discrete-event simulation behind the protocol that the real learner sees.

A unit takes the seconds that a function says, on a clock that jumps from one end of a unit to the next, and answers
with a stand-in. So the learner's own code can be driven by any number of workers, and what it does measured, with
none of them. Used by tests and by `benchmarks/scaling.py`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from curriculum.asynchronous.errands import Answer, Errand, Part, answer, part_of, work_unit
from curriculum.gradient_size import squared_norm
from curriculum.work_stream import Finished
from curriculum.worker import WorkResult, WorkUnit
from lopt.types import Theta

POLL_SECONDS = 1.0


def stand_in_result(unit: WorkUnit, theta: Any) -> WorkResult:
    """Returns a gradient of ones, and as its loss the sum of theta, so that one sees how theta has moved."""
    del unit
    gradient = jax.tree.map(np.ones_like, theta)
    loss = float(sum(np.sum(leaf) for leaf in jax.tree.leaves(theta)))
    return WorkResult(gradient, loss, 10.0, {"horizon": 5.0}, squared_norm=squared_norm(gradient))


class SimulatedStream:
    """A `WorkStream` of pretended workers.

    Args:
      num_workers: How many.
      seconds: What a unit takes on a worker.
      fails: What goes wrong with it; empty for nothing.
      result: What it answers.

    Attributes:
      now: The clock, in seconds.
      most_pending: The largest number of units that were out at a time.
      given_up: Tags of units that the learner stopped waiting for.
    """

    def __init__(
        self,
        num_workers: int,
        seconds: Callable[[WorkUnit, str], float] = lambda unit, worker: 1.0,
        fails: Callable[[WorkUnit, str], str] = lambda unit, worker: "",
        result: Callable[[WorkUnit, Any], WorkResult] = stand_in_result,
    ) -> None:
        self.now, self.seconds, self.fails, self.result = 0.0, seconds, fails, result
        self.names = [f"w{index}" for index in range(num_workers)]
        self.free_at = dict.fromkeys(self.names, 0.0)
        self.pending: list[tuple[float, int, Callable[[], WorkResult | Answer], str]] = []
        self.most_pending = 0
        self.given_up: list[int] = []

    def workers(self) -> Sequence[str]:
        """Returns the pretended workers' names."""
        return self.names

    def start(self, worker: str, fn: Callable[..., Any], payload: tuple[Any, ...], *, tag: int) -> None:
        """Puts the units behind what the worker has."""
        del fn
        sent, theta = payload
        units = [sent] if isinstance(sent, WorkUnit) else [work_unit(unit) for unit in sent.units]
        failures = [self.fails(unit, worker) for unit in units]
        done = max(self.now, self.free_at[worker]) + sum(self.seconds(unit, worker) for unit in units)
        self.free_at[worker] = done
        failure = failures[0] if len(units) == 1 else ""
        answers: Callable[[], WorkResult | Answer]
        if isinstance(sent, Errand):
            answers = partial(self._answer, sent, units, failures, theta)
        else:
            answers = partial(self.result, sent, theta)
        heapq.heappush(self.pending, (done, tag, answers, failure))  # made when it comes: it may be large
        self.most_pending = max(self.most_pending, len(self.pending))

    def _answer(
        self, errand: Errand, units: Sequence[WorkUnit], failures: Sequence[str], theta: Theta
    ) -> Answer:
        done = [
            (Part(task, None, failure), None) if failure else part_of(task, self.result(unit, theta))
            for task, unit, failure in zip(errand.tasks, units, failures, strict=True)
        ]
        return answer(errand.outer_step, units[0].transport, done)

    def wait(self, seconds: float) -> list[Finished]:
        """Returns the next unit to finish, and moves the clock to its end; nothing if that is too far away."""
        patience = max(seconds, POLL_SECONDS)
        if not self.pending or self.pending[0][0] > self.now + patience:
            self.now += patience
            return []
        done, tag, answers, failure = heapq.heappop(self.pending)
        self.now = max(self.now, done)
        return [Finished(tag, None, failure) if failure else Finished(tag, answers())]

    def give_up(self, tag: int) -> None:
        """Forgets the unit."""
        self.given_up.append(tag)
        self.pending = [entry for entry in self.pending if entry[1] != tag]
        heapq.heapify(self.pending)

    def close(self) -> None:
        """Forgets everything."""
        self.pending.clear()
