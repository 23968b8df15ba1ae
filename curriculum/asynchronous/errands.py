"""Units that go to a worker in one message, and the one answer to them: what asynchronous training sends.

All units of an errand are at the same theta, so the sum of their gradients is as old as each of them. What is not
finite, or fails, stays out of the sum and is named. Answers of the same theta can be added up again on their way
(`merge`), by whoever stands between many workers and the learner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from curriculum.transports import TRANSPORTS
from curriculum.transports.base import Packed
from curriculum.worker import AsyncUnit, WorkResult, WorkUnit, run_async_unit, run_work_unit
from lopt.types import Theta


class Errand(NamedTuple):
    """Units that a worker does one after the other."""

    units: tuple[WorkUnit | AsyncUnit, ...]
    tasks: tuple[int, ...]
    """What the learner calls their tasks."""
    outer_step: int
    """Of theta."""


class Part(NamedTuple):
    """What one unit came to, besides its gradient."""

    task: int
    result: WorkResult | None
    """Without gradient and state; None where the unit failed."""
    failure: str = ""
    was_restarted: bool = False
    """Whether a trajectory was lost and started again."""

    @property
    def is_in_sum(self) -> bool:
        """Whether the answer's sum has its gradient: it and the loss are finite."""
        return self.result is not None and self.result.is_finite


class Answer(NamedTuple):
    """What units at one theta came to."""

    outer_step: int
    """Of theta."""
    transport: str
    packed: Packed
    """The sum of the gradients of all parts that are in it; None if there is none."""
    parts: tuple[Part, ...]


def run_errand(errand: Errand, theta: Theta) -> Answer:
    """Returns the sum of the units' gradients, and what each came to. One that raises takes no other along."""
    transport = TRANSPORTS[work_unit(errand.units[0]).transport]
    done = [_run(task, unit, theta) for task, unit in zip(errand.tasks, errand.units, strict=True)]
    return answer(errand.outer_step, transport.name, done)


def answer(outer_step: int, transport: str, done: Sequence[tuple[Part, Packed]]) -> Answer:
    """Returns one answer made of parts and their packed gradients."""
    gradients = [packed for part, packed in done if part.is_in_sum]
    total = TRANSPORTS[transport].add(gradients) if gradients else None
    return Answer(outer_step, transport, total, tuple(part for part, _ in done))


def merge(answers: Sequence[Answer]) -> Answer:
    """Returns answers at one theta as one.

    Raises:
      ValueError: If they are at several: what is added up must be of one age.
    """
    first = answers[0]
    if any((one.outer_step, one.transport) != (first.outer_step, first.transport) for one in answers):
        steps = sorted({one.outer_step for one in answers})
        raise ValueError(f"only answers at one theta can be added up, got those of outer steps {steps}")
    packed = [one.packed for one in answers if one.packed is not None]
    total = TRANSPORTS[first.transport].add(packed) if packed else None
    return first._replace(packed=total, parts=tuple(part for one in answers for part in one.parts))


def part_of(task: int, result: WorkResult, *, was_restarted: bool = False) -> tuple[Part, Packed]:
    """Returns a unit's part of an answer, and its packed gradient."""
    return Part(task, result._replace(gradient=(), state=()), "", was_restarted), result.gradient


def _run(task: int, unit: WorkUnit | AsyncUnit, theta: Theta) -> tuple[Part, Packed]:
    try:
        if isinstance(unit, WorkUnit):
            return part_of(task, run_work_unit(unit, theta))
        result, was_restarted = run_async_unit(unit, theta)
        return part_of(task, result, was_restarted=was_restarted)
    except Exception as error:  # any: a unit's failure is the learner's to judge
        return Part(task, None, f"{type(error).__name__}: {error}"), None


def work_unit(unit: WorkUnit | AsyncUnit) -> WorkUnit:
    """Returns the unit without what says whose trajectory it goes on with."""
    return unit if isinstance(unit, WorkUnit) else unit.unit
