"""Units of work that workers run, besides those of `curriculum`: importable, light, and pure but for
clocks.
"""

from __future__ import annotations

import time
from typing import Any

from runtime_model.timing import StepTiming, time_step
from task_generator.task_config import TaskConfig


def time_unit(config_json: str, repeats: int, max_seconds_per_step: float) -> dict[str, Any]:
    """Times one configuration on this worker; failures are part of the record."""
    config = TaskConfig.model_validate_json(config_json)
    timing = time_step(
        config, repeats=repeats, max_seconds_per_step=max_seconds_per_step, clock=time.perf_counter
    )
    return timing.model_dump(mode="json")


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
