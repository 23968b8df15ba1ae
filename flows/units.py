"""Units of work that workers run, besides those of `curriculum`: importable, light, and pure but for clocks.

Each compiles a program that is not needed again. Compiled programs and what compiling them took would stay in the
worker for ever, a gigabyte after fifty of them, so both are given back when the unit ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax

from curriculum.curves import CurveBatch, CurveUnit, run_curve_unit
from runtime_model.timing import StepTiming, time_step
from task_generator.task_config import TaskConfig


def time_unit(config_json: str, repeats: int, max_seconds_per_step: float) -> dict[str, Any]:
    """Times one configuration on this worker; failures are part of the record."""
    config = TaskConfig.model_validate_json(config_json)
    try:
        timing = time_step(
            config, repeats=repeats, max_seconds_per_step=max_seconds_per_step, clock=time.perf_counter
        )
    finally:
        release_memory()
    return timing.model_dump(mode="json")


def curve_unit(unit: CurveUnit, settings: Sequence[Any]) -> CurveBatch:
    """Computes one unit's learning curves on this worker."""
    try:
        return run_curve_unit(unit, settings)
    finally:
        release_memory()


def release_memory() -> None:
    """Drops compiled programs and gives freed memory back to the system."""
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # musl has no malloc_trim
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def killed_timing(config_json: str, reason: str) -> dict[str, Any]:
    """Returns the record of a configuration that took its workers down."""
    config = TaskConfig.model_validate_json(config_json)
    timing = StepTiming(
        config_fingerprint=config.fingerprint(),
        config_json=config.canonical_json(),
        family=config.family.family,
        seconds_per_step=None,
        compile_seconds=None,
        valid=False,
        reason=reason,
    )
    return timing.model_dump(mode="json")
