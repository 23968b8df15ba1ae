"""Who is there to work, and who has room for another unit; only `update` takes longer for more workers."""

from __future__ import annotations

from collections.abc import Sequence

UNITS_PER_WORKER = 2
"""One in hand and one waiting, so that no worker waits for the learner."""


class Crew:
    """Counts the units of every worker."""

    def __init__(self) -> None:
        self._load: dict[str, int] = {}
        self._room: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._load)

    def update(self, workers: Sequence[str]) -> list[str]:
        """Takes note of who is there now; returns who has gone."""
        there = set(workers)
        gone = [worker for worker in self._load if worker not in there]
        for worker in gone:
            del self._load[worker]
            self._room.pop(worker, None)
        for worker in workers:
            if worker not in self._load:
                self._load[worker] = 0
                self._room[worker] = None
        return gone

    def next_with_room(self) -> str | None:
        """Returns the worker that has had room for the longest, or None."""
        return next(iter(self._room), None)

    def started(self, worker: str) -> None:
        """Counts a unit that was started; the worker goes to the end of the row."""
        self._load[worker] += 1
        del self._room[worker]
        if self._load[worker] < UNITS_PER_WORKER:
            self._room[worker] = None

    def finished(self, worker: str) -> None:
        """Counts a unit that is over, in whatever way; its worker may be gone."""
        if worker in self._load:
            self._load[worker] -= 1
            self._room.setdefault(worker)
