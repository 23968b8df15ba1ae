"""The timings of a workspace: the latest of each configuration, those of one machine apart from others'."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from flows.session import Session
from runtime_model.machine import Machine
from runtime_model.timing import StepTiming
from task_generator.task_config import TaskConfig


def read_timings(session: Session) -> list[StepTiming]:
    """Returns the latest timing of every configuration and machine, oldest first.

    Records of an older format are left out: timing the same configurations again replaces them.
    """
    latest: dict[tuple[str, Machine | None], StepTiming] = {}
    for record in session.timings.read():
        try:
            timing = StepTiming.model_validate(record)
        except ValidationError:
            continue
        key = timing.config_fingerprint, timing.machine
        latest.pop(key, None)
        latest[key] = timing
    return list(latest.values())


def stored_timings(session: Session, configs: Sequence[TaskConfig]) -> dict[str, StepTiming]:
    """Returns the latest timing of each configuration that has one, by fingerprint."""
    wanted = {config.fingerprint() for config in configs}
    return {t.config_fingerprint: t for t in read_timings(session) if t.config_fingerprint in wanted}


def newest_machine(timings: Sequence[StepTiming]) -> Machine | None:
    """Returns the machine that the newest timing was taken on."""
    return next((t.machine for t in reversed(timings) if t.machine is not None), None)


def of_machine(timings: Sequence[StepTiming], machine: Machine | None) -> list[StepTiming]:
    """Returns the timings that were taken on `machine`, and those that do not say where."""
    return [timing for timing in timings if timing.machine in (None, machine)]
