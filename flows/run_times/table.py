"""Timings as tables: one row per family while they come in, one per timing for the pages."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from runtime_model.timing import StepTiming
from task_generator.task_config import TaskConfig

INTERVAL = 60.0
"""Seconds between two showings of the running table."""


def timing_rows(timings: Sequence[StepTiming]) -> list[dict[str, Any]]:
    """Returns one row per timing, for people."""
    return [
        {
            "task": TaskConfig.model_validate_json(timing.config_json).label,
            "ms per step": _milliseconds(timing.seconds_per_step),
            "ms per update": _milliseconds(timing.update_seconds),
            "compile s": None if timing.compile_seconds is None else round(timing.compile_seconds, 2),
            "noise": timing.relative_noise and round(timing.relative_noise, 3),
            "core share": timing.cpu_share,
            "load": timing.load,
            "valid": timing.valid,
            "reason": timing.reason,
        }
        for timing in timings
    ]


def family_table(timings: Sequence[StepTiming]) -> Table:
    """Returns one row per family: how many, how fast, and why the others are invalid."""
    table = Table("family", "timed", "valid", "ms per step", "s each", "invalid because", box=None)
    for family in sorted({timing.family for timing in timings}):
        own = [timing for timing in timings if timing.family == family]
        seconds = [t.seconds_per_step for t in own if t.valid and t.seconds_per_step is not None]
        range_text = f"{1e3 * min(seconds):.3g} – {1e3 * max(seconds):.3g}" if seconds else "–"
        compiling = [t.compile_seconds for t in own if t.compile_seconds is not None]
        reasons = Counter(t.reason.split(":")[0] for t in own if not t.valid)
        table.add_row(
            family,
            str(len(own)),
            str(len(seconds)),
            range_text,
            f"{np.median(compiling):.1f}" if compiling else "–",
            ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()),
        )
    return table


class RunningTable:
    """Shows the table of what has come in so far, once a minute.

    Args:
      show: What is called with the table.
    """

    def __init__(self, show: Callable[[Table], None]) -> None:
        self._show = show
        self._timings: list[StepTiming] = []
        self._last = time.monotonic()

    def add(self, record: dict[str, Any]) -> None:
        """Takes in a timing's record."""
        self._timings.append(StepTiming.model_validate(record))
        if time.monotonic() - self._last >= INTERVAL:
            self._last = time.monotonic()
            self._show(family_table(self._timings))


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1e3 * seconds, 4)
