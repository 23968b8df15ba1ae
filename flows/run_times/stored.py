"""The timings of a workspace: the latest of each configuration, those of one machine apart from others'."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pydantic import ValidationError

from flows.session import Session
from runtime_model.machine import Machine
from runtime_model.timing import StepTiming
from runtime_model.update_program import NO_UPDATE
from task_generator.task_config import TaskConfig


class Request(NamedTuple):
    """What a timing is wanted of; one of anything else does not answer it."""

    machine: Machine
    max_seconds_per_step: float
    update: str

    def differences(self, timing: StepTiming) -> list[str]:
        """Returns why a stored timing does not answer, "jax 0.10.2 there, 0.11.0 here" each; none if it does.

        What a timing does not say counts as equal.
        """
        found = [] if timing.machine is None else self.machine.differences(timing.machine)
        limit, update = timing.max_seconds_per_step, timing.update_optimizer
        if limit is not None and limit != self.max_seconds_per_step:
            found.append(f"--max-seconds-per-step {limit:g} there, {self.max_seconds_per_step:g} here")
        # What is invalid has no update timed, whichever is asked for.
        if timing.valid and self.update not in (NO_UPDATE, update):
            found.append(f"--update {update or NO_UPDATE} there, {self.update} here")
        return found


def read_timings(session: Session) -> list[StepTiming]:
    """Returns the latest timing of every configuration and machine, oldest first.

    Records of an older format are left out: timing the same configurations again replaces them.
    """
    latest: dict[tuple[str, Machine | None], StepTiming] = {}
    for timing in _read(session):
        key = timing.config_fingerprint, timing.machine
        latest.pop(key, None)
        latest[key] = timing
    return list(latest.values())


def stored_timings(
    session: Session, configs: Iterable[TaskConfig], request: Request
) -> tuple[dict[str, StepTiming], Counter[str]]:
    """Returns the latest timing of each configuration that answers, by fingerprint, and why others do not.

    The reasons are counted: one for each configuration that was timed, but has no timing that answers.
    """
    wanted = {config.fingerprint() for config in configs}
    answers: dict[str, StepTiming] = {}
    reasons: dict[str, str] = {}
    for timing in _read(session):
        if timing.config_fingerprint not in wanted:
            continue
        if differences := request.differences(timing):
            reasons[timing.config_fingerprint] = "; ".join(differences)
        else:
            answers[timing.config_fingerprint] = timing
    return answers, Counter(why for fingerprint, why in reasons.items() if fingerprint not in answers)


def newest_machine(timings: Sequence[StepTiming]) -> Machine | None:
    """Returns the machine that the newest timing was taken on."""
    return next((t.machine for t in reversed(timings) if t.machine is not None), None)


def of_machine(timings: Sequence[StepTiming], machine: Machine | None) -> list[StepTiming]:
    """Returns the timings that were taken on `machine`, and those that do not say where."""
    return [timing for timing in timings if timing.machine in (None, machine)]


def _read(session: Session) -> Iterator[StepTiming]:
    for record in session.timings.read():
        with contextlib.suppress(ValidationError):  # of an older format
            yield StepTiming.model_validate(record)
