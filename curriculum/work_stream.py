"""Units of work that stream: each is started on a worker of our choice and comes back when done, in any order.

The asynchronous learner sees a cluster through this protocol, and the simulation of a large one implements it too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol


class Finished(NamedTuple):
    """A unit that is over; `failure` says what went wrong, and is empty where there is a result."""

    tag: int
    result: Any
    failure: str = ""
    others: tuple[int, ...] = ()
    """Units that this is the result of, too: they were added up on the way."""
    is_under_way: bool = False
    """There is no result yet: it comes with others', but the worker has room for another unit."""
    had_begun: bool = True
    """False: its worker was lost while it waited behind another unit, so the failure says nothing about it."""


class WorkStream(Protocol):
    """Whoever runs units of work."""

    def workers(self) -> Sequence[str]:
        """Returns the names of the workers that are there now."""
        ...

    def start(self, worker: str, fn: Callable[..., Any], payload: tuple[Any, ...], *, tag: int) -> None:
        """Starts `fn(*payload)` on `worker`; when that one is lost, the unit finishes with a failure."""
        ...

    def wait(self, seconds: float) -> list[Finished]:
        """Returns what has finished, at least one unit unless `seconds` pass."""
        ...

    def give_up(self, tag: int) -> None:
        """Stops waiting for a unit, and frees its worker if it never ends."""
        ...

    def close(self) -> None:
        """Gives up everything that has not finished."""
        ...


class InProcessWorkStream:
    """Runs units here, one after the other, in the order that they were started in."""

    def __init__(self, num_workers: int = 1) -> None:
        self._names = [f"here-{index}" for index in range(num_workers)]
        self._waiting: deque[tuple[int, Callable[..., Any], tuple[Any, ...]]] = deque()

    def workers(self) -> Sequence[str]:
        """Returns the pretended workers' names."""
        return self._names

    def start(self, worker: str, fn: Callable[..., Any], payload: tuple[Any, ...], *, tag: int) -> None:
        """Queues the unit."""
        del worker
        self._waiting.append((tag, fn, payload))

    def wait(self, seconds: float) -> list[Finished]:
        """Runs the next unit; what it raises is its failure."""
        del seconds
        if not self._waiting:
            return []
        tag, fn, payload = self._waiting.popleft()
        try:
            return [Finished(tag, fn(*payload))]
        except Exception as error:  # any: a unit's failure is the learner's to judge
            return [Finished(tag, None, f"{type(error).__name__}: {error}")]

    def give_up(self, tag: int) -> None:
        """Forgets the unit if it has not run."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] != tag)

    def close(self) -> None:
        """Forgets what has not run."""
        self._waiting.clear()
