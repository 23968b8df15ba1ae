"""What has been sent to workers and has not come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from curriculum.asynchronous.crew import UNITS_PER_WORKER


class Sent(NamedTuple):
    """One message to a worker."""

    worker: str
    tasks: tuple[int, ...]
    started: float
    validation: int | None = None
    """Of which outer step; None: they are meta-gradients."""
    is_under_way: bool = False
    """Done, and added up with others' on its way: the worker has room already."""


class InFlight:
    """Messages by their tags; one that is late or lost is forgotten, and what still comes of it is not known."""

    def __init__(self) -> None:
        self._sent: dict[int, Sent] = {}
        self._of_validations: Counter[int] = Counter()  # kept up: looking through six thousand takes 0.4 ms

    def add(self, tag: int, sent: Sent) -> None:
        """Takes note of a message."""
        self._sent[tag] = sent
        if sent.validation is not None:
            self._of_validations[sent.validation] += 1

    def under_way(self, tag: int) -> Sent | None:
        """Takes note that a message's units are done; returns it if that is news."""
        sent = self._sent.get(tag)
        if sent is None or sent.is_under_way:
            return None
        self._sent[tag] = sent._replace(is_under_way=True)
        return sent

    def pop(self, tags: Sequence[int]) -> list[Sent]:
        """Returns those of the messages that are known, which are so no more."""
        known = [self._sent.pop(tag) for tag in tags if tag in self._sent]
        self._of_validations.subtract(sent.validation for sent in known if sent.validation is not None)
        return known

    def pop_late(self, now: float, limit: float) -> list[tuple[int, Sent, bool]]:
        """Returns the messages, known no more, whose units had more than `limit` seconds each.

        The second message of a worker waits for its first. So the worker's others go with its first, and the flag
        says which of them had begun.
        """
        in_hand: dict[str, int] = {}
        for tag, sent in self._sent.items():  # in the order that they were sent in
            if not sent.is_under_way:
                in_hand.setdefault(sent.worker, tag)

        def is_late(sent: Sent) -> bool:
            return now - sent.started > limit * UNITS_PER_WORKER * len(sent.tasks)

        stuck = {worker for worker, tag in in_hand.items() if is_late(self._sent[tag])}
        late = [
            (tag, sent, sent.is_under_way or in_hand[sent.worker] == tag)
            for tag, sent in self._sent.items()
            if (is_late(sent) if sent.is_under_way else sent.worker in stuck)
        ]
        self.pop([tag for tag, _, _ in late])
        return late

    def validations(self) -> set[int]:
        """Returns the outer steps of the validations that have units out."""
        self._of_validations = +self._of_validations  # without those that are at zero
        return set(self._of_validations)
