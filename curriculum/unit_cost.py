"""How long a unit of work took, and how much of that was compilation.

A unit compiles when its worker has no program for its task yet: tracing, lowering, and XLA (or reading the
persistent cache). JAX reports each of these as a span of time, in the thread that compiles; spans may lie inside
one another, so what counts is their union. On VeLO's workers no computation happened while one compiled ([1], E.5),
which is why the share is worth knowing.

[1] Metz et al. 2022, VeLO.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from jax import monitoring

_PREFIX = "/jax/core/compile/"
_ACTIVE = threading.local()
"""`timers`: those that run in this thread, the outermost first."""


class UnitCost(NamedTuple):
    """Seconds of a unit on its worker; together they are all of it."""

    compile_seconds: float = 0.0
    run_seconds: float = 0.0


class CostTimer:
    """Seconds between the beginning and the end of a context, and the spans of compilation inside."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []
        self._seconds = 0.0

    def add_span(self, start: float, end: float) -> None:
        """Takes in a span; what lies inside it is over by then, and is forgotten."""
        while self._spans and self._spans[-1][0] >= start:
            self._spans.pop()
        self._spans.append((start, end))

    def stop(self, seconds: float) -> None:
        """Ends it, after so many seconds in all."""
        self._seconds = seconds

    @property
    def cost(self) -> UnitCost:
        """What it came to."""
        compiling = min(math.fsum(end - start for start, end in self._spans), self._seconds)
        return UnitCost(compiling, self._seconds - compiling)


@contextlib.contextmanager
def timed(clock: Callable[[], float] = time.perf_counter) -> Iterator[CostTimer]:
    """Times what happens in the context, in this thread. Contexts may lie inside one another."""
    _listen()
    timers: list[CostTimer] = _ACTIVE.__dict__.setdefault("timers", [])
    timer, began = CostTimer(), clock()
    timers.append(timer)
    try:
        yield timer
    finally:
        timers.remove(timer)
        timer.stop(clock() - began)


@cache
def _listen() -> None:
    monitoring.register_event_time_span_listener(_take_span)


def _take_span(event: str, start_time: float, end_time: float, **_: str | int) -> None:
    if event.startswith(_PREFIX):
        for timer in getattr(_ACTIVE, "timers", ()):
            timer.add_span(start_time, end_time)
