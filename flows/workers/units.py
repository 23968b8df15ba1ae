"""Units of work that workers run, besides those of `curriculum`: importable, light, and pure but for clocks.

Each compiles a program that is not needed again. Compiled programs and what compiling them took would stay in the
worker for ever, a gigabyte after fifty of them, so both are given back when the unit ends.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from curriculum.evaluation.curves import CurveBatch, CurveUnit, run_curve_unit
from curriculum.evaluation.step_cost import CostUnit, run_cost_unit
from flows.run_times.process import TimingProcess
from flows.workers.memory import release_memory
from lopt.config import derive
from runtime_model.machine import Machine, load_average, this_machine
from runtime_model.timing import TimingSettings, unmeasured
from task_generator.task_config import TaskConfig

_TIMING = TimingProcess(max_seconds=60.0, max_process_bytes=4 << 30)
"""One per worker; started by the first configuration."""
_IN_TURN = threading.Lock()
"""A worker with several threads would mix their configurations up, and they would disturb one another."""


def time_unit(
    config_json: str, settings: dict[str, Any], max_seconds: float, max_process_bytes: int
) -> dict[str, Any]:
    """Times one configuration in a process beside this worker; failures are part of the record."""
    with _IN_TURN:  # its time starts when its turn comes
        _TIMING.max_seconds, _TIMING.max_process_bytes = max_seconds, max_process_bytes
        record = _TIMING.measure(config_json, settings)
    if "config_json" in record:
        return record
    return killed_timing(config_json, settings, record["reason"], this_machine(), load=load_average())


def machine_unit() -> dict[str, Any]:
    """Returns what this worker runs on."""
    return this_machine().model_dump(mode="json")


def curve_unit(unit: CurveUnit, settings: Sequence[Any]) -> CurveBatch:
    """Computes one unit's learning curves on this worker."""
    try:
        return run_curve_unit(unit, settings)
    finally:
        release_memory()


def cost_unit(unit: CostUnit, settings: Sequence[Any]) -> tuple[float, ...]:
    """Times one step of every optimizer on one task."""
    try:
        return run_cost_unit(unit, settings)
    finally:
        release_memory()


def killed_timing(
    config_json: str, settings: dict[str, Any], reason: str, machine: Machine, *, load: float | None = None
) -> dict[str, Any]:
    """Returns the record of a configuration that took its process or its workers down.

    Args:
      config_json: The configuration.
      settings: How it was to be measured.
      reason: What happened.
      machine: What the workers run on.
      load: Of that machine; None where nobody there is left to ask.
    """
    timing = unmeasured(TaskConfig.model_validate_json(config_json), reason)
    limit = TimingSettings.model_validate(settings).max_seconds_per_step
    known = {"machine": machine.model_dump(), "load": load, "max_seconds_per_step": limit}
    return derive(timing, **known).model_dump(mode="json")
