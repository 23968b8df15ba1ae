"""Measures the seconds per inner step of a task configuration; whatever goes wrong is recorded, never raised.

Inner training, batches drawn in-graph, is one compiled program whose trip count is a run-time value. After a
warm-up the trip count is chosen so that a repeat takes about `target_seconds`; the result is the median of
the repeats. Each repeat has its own dynamic configuration (drawn from fixed keys, the same for every
configuration), because the activation it selects changes the cost and is not part of the static
configuration.

Deviations from [1] and its release: SGD(0.01) on one task by default instead of 8 vmapped ones, since
batching small problems pays on an accelerator but not on a CPU; a loop long enough to hide dispatch instead
of 10 steps; hopeless configurations are refused from the compiled program's own numbers, or after one step.

[1] Metz et al. 2022, VeLO (arXiv:2211.09760), App. C.4
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
import optax

from lopt.config import FrozenConfig
from runtime_model.step_program import MAX_STEPS, Clock, RefusedError, StepProgram, compile_program
from task_generator.datasets.placement import DatasetTooLargeError
from task_generator.datasets.prepared import DatasetNotPreparedError
from task_generator.task_config import TaskConfig


class StepTiming(FrozenConfig):
    """What one measurement gave. `valid` is False for what must not be sampled; `reason` says why."""

    config_fingerprint: str
    config_json: str
    family: str
    seconds_per_step: float | None
    """Per inner step and task. None if it never ran; known for a configuration that ran but was too slow."""
    compile_seconds: float | None
    valid: bool
    reason: str = ""
    num_tasks: int = 1
    num_steps: int = 0
    """Steps per repeat."""
    relative_spread: float | None = None
    """(slowest − fastest) / median of the repeats: how far the number can be trusted."""
    optimizer: str = "sgd(0.01)"
    hardware: str = ""
    jax_version: str = ""


def time_step(
    config: TaskConfig,
    *,
    num_steps: int | None = None,
    repeats: int = 5,
    max_seconds_per_step: float = 0.05,
    max_bytes: int = 2 << 30,
    num_tasks: int = 1,
    target_seconds: float = 0.04,
    optimizer: optax.GradientTransformationExtraArgs | None = None,
    optimizer_name: str = "sgd(0.01)",
    clock: Clock = time.perf_counter,
) -> StepTiming:
    """Compiles and times inner training on `config`.

    Args:
      config: The configuration.
      num_steps: Steps per repeat; None chooses them from the warm-up and `target_seconds`.
      repeats: Timed runs; the median counts.
      max_seconds_per_step: Slower than this is recorded invalid, after one step if that shows it.
      max_bytes: A program whose temporary buffers need more is recorded invalid without running.
      num_tasks: Tasks vmapped over their dynamic configuration. The result is per task.
      target_seconds: What a repeat should take where `num_steps` is None.
      optimizer: What trains the task; None is SGD(0.01). Name any other in `optimizer_name`, which is
        recorded.
      optimizer_name: See `optimizer`.
      clock: Seconds, from any origin.

    Raises:
      ValueError: If `repeats` or `num_tasks` is below 1.
      DatasetNotPreparedError: If the configuration's data set is not on this machine.
      DatasetTooLargeError: If it does not fit the device. Every other failure is recorded, not raised.
    """
    if repeats < 1 or num_tasks < 1:
        raise ValueError(f"`repeats` and `num_tasks` must be at least 1, got {repeats=} and {num_tasks=}.")
    trainer = optax.with_extra_args_support(optax.sgd(0.01)) if optimizer is None else optimizer
    record: dict[str, Any] = {"seconds_per_step": None, "compile_seconds": None, "valid": False}
    try:
        program = compile_program(
            config.build(), trainer, repeats=repeats, num_tasks=num_tasks, max_bytes=max_bytes, clock=clock
        )
        record["compile_seconds"] = program.compile_seconds
        _measure(program, record, num_steps, max_seconds_per_step, target_seconds, clock)
    except RefusedError as refused:
        record["reason"] = str(refused)
    except (DatasetNotPreparedError, DatasetTooLargeError):
        raise  # says nothing about the configuration: the data can be prepared, and then it runs
    except Exception as error:  # a failing configuration is a measurement, whatever it fails with
        record |= {"reason": _first_line(error), "seconds_per_step": None}
    device = jax.devices()[0]
    return StepTiming(
        config_fingerprint=config.fingerprint(),
        config_json=config.canonical_json(),
        family=config.family.family,
        num_tasks=num_tasks,
        optimizer=optimizer_name,
        hardware=f"{device.platform}:{device.device_kind}",
        jax_version=jax.__version__,
        **record,
    )


def _measure(
    program: StepProgram,
    record: dict[str, Any],
    num_steps: int | None,
    limit: float,
    target_seconds: float,
    clock: Clock,
) -> None:
    """Fills `record` with what is known so far, so that a refusal keeps the seconds that led to it."""
    per_step = program.seconds(0, 1, clock) / program.num_tasks  # cold: an upper bound
    if per_step < 4 * limit:
        per_step = program.seconds(0, 2, clock) / (2 * program.num_tasks)
    record["seconds_per_step"] = per_step
    _refuse_slow(per_step, limit)
    steps = num_steps or _choose_steps(program, target_seconds, clock)
    runs = [
        program.seconds(repeat, steps, clock) / (steps * program.num_tasks)
        for repeat in range(len(program.dynamics))
    ]
    median = statistics.median(runs)
    spread = (max(runs) - min(runs)) / median if median > 0 else None
    record |= {"seconds_per_step": median, "num_steps": steps, "relative_spread": spread}
    _refuse_slow(median, limit)
    record["valid"] = True


def _choose_steps(program: StepProgram, target_seconds: float, clock: Clock) -> int:
    """Returns how many steps take about `target_seconds`, from trials long enough to measure."""
    steps = 1
    while steps < MAX_STEPS:
        steps *= 4
        seconds = program.seconds(0, steps, clock)
        if seconds > target_seconds / 8:
            seconds = min(seconds, program.seconds(0, steps, clock))  # a busy machine slows single trials
            return max(1, min(MAX_STEPS, round(steps * target_seconds / seconds)))
    return MAX_STEPS


def _refuse_slow(seconds: float, limit: float) -> None:
    if seconds > limit:
        raise RefusedError(f"too slow: {seconds:.3g} s per step, more than {limit:g} s")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__
