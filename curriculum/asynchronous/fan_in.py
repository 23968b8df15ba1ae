"""Between many workers and one learner: aggregators that add up the answers of a group before they go on.

Every worker belongs to a group. Its aggregator adds up answers of one age (of the same theta) until `fan_in` units
are together or the oldest has waited `patience` seconds, and sends the sum on; so the learner unpacks and adds one
gradient where it had many. That a worker has room again it hears at once, or fast workers would wait for slow ones.
Groups of groups make a tree: a `FanInStream` is a `WorkStream` and takes one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from curriculum.asynchronous.errands import Answer, merge
from curriculum.work_stream import Finished, WorkStream

DEFAULT_PATIENCE = 1.0


class Held(NamedTuple):
    """Answers of one group and one age, waiting to be added up."""

    answers: list[Answer]
    tags: list[int]
    since: float


class Aggregator:
    """Collects answers by group and age.

    Args:
      size: Units that are sent on together.
      patience: Seconds that an answer may wait for others.
    """

    def __init__(self, size: int, patience: float = DEFAULT_PATIENCE) -> None:
        self._size, self._patience = size, patience
        self._held: dict[tuple[int, int], Held] = {}

    def __len__(self) -> int:
        """Answers that wait."""
        return sum(len(held.answers) for held in self._held.values())

    def take(self, group: int, finished: Finished, now: float) -> Held | None:
        """Takes an answer in; returns those to be added up, if they are enough."""
        key = group, finished.result.outer_step
        held = self._held.setdefault(key, Held([], [], now))
        held.answers.append(finished.result)
        held.tags.extend((finished.tag, *finished.others))
        if sum(len(answer.parts) for answer in held.answers) < self._size:
            return None
        return self._held.pop(key)

    def overdue(self, now: float) -> list[tuple[int, Held]]:
        """Returns the groups whose answers have waited long enough, and those."""
        keys = [key for key, held in self._held.items() if now - held.since >= self._patience]
        return [(key[0], self._held.pop(key)) for key in keys]


class FanInStream:
    """A `WorkStream` whose answers come added up.

    Args:
      inner: Whoever runs units.
      fan_in: Units that come as one.
      group_of: Which aggregator a worker answers to.
      clock: Seconds, from any origin.
      patience: Seconds that an answer may wait for others.
      add: Adds answers up; `merge`, or what does it elsewhere.
    """

    def __init__(
        self,
        inner: WorkStream,
        fan_in: int,
        group_of: Callable[[str], int],
        clock: Callable[[], float],
        *,
        patience: float = DEFAULT_PATIENCE,
        add: Callable[[int, Sequence[Answer]], Answer] = lambda group, answers: merge(answers),
    ) -> None:
        self._inner, self._group_of, self._clock, self._add = inner, group_of, clock, add
        self._aggregator = Aggregator(fan_in, patience)
        self._worker_of: dict[int, str] = {}

    def workers(self) -> Sequence[str]:
        """Returns the inner stream's workers."""
        return self._inner.workers()

    def start(self, worker: str, fn: Callable[..., Any], payload: tuple[Any, ...], *, tag: int) -> None:
        """Starts the unit."""
        self._worker_of[tag] = worker
        self._inner.start(worker, fn, payload, tag=tag)

    def wait(self, seconds: float) -> list[Finished]:
        """Returns sums that are complete, and for answers that wait for others that their workers have room."""
        taken: list[Finished] = []
        for finished in self._inner.wait(seconds):
            if finished.is_under_way:  # of an inner stream of this kind
                taken.append(finished)
                continue
            worker = self._worker_of.pop(finished.tag, None)
            for other in finished.others:
                self._worker_of.pop(other, None)
            if finished.failure or worker is None or not isinstance(finished.result, Answer):
                taken.append(finished)
                continue
            group = self._group_of(worker)
            complete = self._aggregator.take(group, finished, self._clock())
            if complete:
                taken.append(self._sum(group, complete))
            else:
                tags = (finished.tag, *finished.others)
                taken.extend(Finished(tag, None, is_under_way=True) for tag in tags)
        return taken + [self._sum(group, held) for group, held in self._aggregator.overdue(self._clock())]

    def give_up(self, tag: int) -> None:
        """Gives up the unit; if it is part of a sum already, it stays there."""
        self._worker_of.pop(tag, None)
        self._inner.give_up(tag)

    def close(self) -> None:
        """Gives up everything that has not finished."""
        self._inner.close()

    def _sum(self, group: int, held: Held) -> Finished:
        first, *others = held.tags
        return Finished(first, self._add(group, held.answers), others=tuple(others))
