"""Measures the seconds per inner step of a task configuration; whatever goes wrong is recorded, never raised.

Inner training, batches drawn in-graph, is one compiled program whose trip count is a run-time value. After a
warm-up the trip count is chosen so that a run takes about `target_seconds`. Every repeat has its own dynamic
configuration (drawn from fixed keys, the same for every configuration), because the activation it selects
changes the cost and is not part of the static configuration; a repeat is the median of several runs, taken
in turns with the other repeats and compared with the speed probes beside them, so that what else the machine
does does not count; what dispatching takes (a run of no steps) is subtracted; the result is the median of the
repeats (`timed_runs`). The optimizer's update is measured by itself, in the same way (`update_program`).

Deviations from [1] and its release: SGD(0.01) on one task by default instead of 8 vmapped ones, since
batching small problems pays on an accelerator but not on a CPU; a loop long enough to hide dispatch instead
of 10 steps; hopeless configurations are refused from their number of products, from the compiled program's own
numbers, or after one step.

[1] Metz et al. 2022, VeLO (arXiv:2211.09760), App. C.4
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import jax
import numpy as np
from pydantic import Field

from lopt.config import FrozenConfig
from runtime_model.machine import Machine, load_average, this_machine
from runtime_model.step_program import StepProgram, compile_program
from runtime_model.timed_runs import Clock, Clocks, clocks_here, timed_runs
from runtime_model.update_program import NO_UPDATE, get_update, time_update
from task_generator.datasets.placement import DatasetTooLargeError, device_memory
from task_generator.datasets.prepared import DatasetNotPreparedError
from task_generator.task_config import TaskConfig

MAX_FLOPS_PER_SECOND = 1e12
"""More than a core does. Only what could not keep the limit even at this speed is refused uncompiled."""
PATIENCE = 20
"""A first step is often slow (memory is touched first then); only this many times the limit ends it there."""


class TimingSettings(FrozenConfig):
    """How to measure, and what counts as invalid."""

    repeats: int = Field(5, ge=1, description="Dynamic configurations; their median counts.")
    runs: int = Field(3, ge=1, description="Timed runs of each; their median counts.")
    target_seconds: float = Field(0.02, gt=0, description="What a run should take.")
    num_steps: int | None = Field(None, ge=1, description="Steps of a run; None: as `target_seconds` needs.")
    num_tasks: int = Field(1, ge=1, description="Tasks vmapped over their dynamic configuration.")
    max_seconds_per_step: float = Field(0.05, gt=0, description="Slower than this is invalid.")
    max_bytes: int | None = Field(
        2 << 30,
        description="A program that needs more memory, data included, is not run; None: more than the device has.",
    )
    update: str = Field(
        "adam", description="Optimizer whose update is timed too: adam, an architecture, none."
    )


DEFAULT_SETTINGS = TimingSettings()


class RefusedError(Exception):
    """A configuration that is not worth running (further); the message is the recorded reason."""


class StepTiming(FrozenConfig):
    """What one measurement gave. `valid` is False for what must not be sampled; `reason` says why."""

    config_fingerprint: str
    config_json: str
    family: str
    seconds_per_step: float | None
    """Of the gradient step (with SGD), per inner step and task. None if it never ran; known for a configuration
    that ran but was too slow."""
    compile_seconds: float | None
    valid: bool
    reason: str = ""
    update_seconds: float | None = None
    """Of one update by `update_optimizer`, measured by itself. None if not asked for, or it failed."""
    update_optimizer: str = ""
    update_reason: str = ""
    """Why an update that was asked for gave no seconds; says nothing about the gradient step."""
    max_seconds_per_step: float | None = None
    """The limit that `valid` is of. None: of a record older than this field."""
    num_tasks: int = 1
    num_steps: int = 0
    """Steps per run."""
    relative_spread: float | None = None
    """(slowest − fastest) / median of the repeats: how much the dynamic choices matter."""
    relative_noise: float | None = None
    """Median over the repeats of (slowest − fastest) / median run: how far the number can be trusted."""
    probe_seconds: float | None = None
    """Of the speed probe while it was measured: timings of one machine compare at one speed of it."""
    cpu_share: float | None = None
    """Processor seconds per second of the runs: on a processor, below 1 something else had the core."""
    load: float | None = None
    """Load average of the machine when the measurement ended."""
    temporary_bytes: int | None = None
    measured_at: str = ""
    machine: Machine | None = None
    """None: its process died before it could say."""

    @property
    def seconds_with_update(self) -> float | None:
        """The gradient step and the optimizer's update."""
        if self.seconds_per_step is None or self.update_seconds is None:
            return None
        return self.seconds_per_step + self.update_seconds


def time_step(
    config: TaskConfig,
    settings: TimingSettings = DEFAULT_SETTINGS,
    *,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
    on_stage: Callable[[str], None] = lambda _: None,
    on_gradient: Callable[[StepTiming], None] = lambda _: None,
) -> StepTiming:
    """Compiles and times inner training on `config`.

    Args:
      config: The configuration.
      settings: How to measure, and what counts as invalid.
      clock: Seconds, from any origin.
      cpu_clock: Processor seconds of this process, from any origin.
      on_stage: Told what is being done ("compiling"), for whoever watches from outside.
      on_gradient: Given the timing before its update is timed: what stands if that takes the process down.

    Raises:
      UnknownNameError: If `settings.update` names no optimizer.
      DatasetNotPreparedError: If the configuration's data set is not on this machine. Every other failure is
        recorded, not raised.
    """
    if settings.update != NO_UPDATE:
        get_update(settings.update)
    record = unmeasured(config).model_dump() | {
        "num_tasks": settings.num_tasks,
        "max_seconds_per_step": settings.max_seconds_per_step,
    }
    clocks = clocks_here(clock, cpu_clock)
    program = _time_gradient(config, settings, record, clocks, on_stage)
    if program is not None and settings.update != NO_UPDATE:
        record["update_optimizer"] = settings.update
        on_gradient(_timing_here(record))
        on_stage("timing the update")
        _time_update(program, settings, record, clocks)
    return _timing_here(record)


def unmeasured(config: TaskConfig, reason: str = "") -> StepTiming:
    """Returns the record of a configuration that gave no numbers."""
    return StepTiming(
        config_fingerprint=config.fingerprint(),
        config_json=config.canonical_json(),
        family=config.family.family,
        seconds_per_step=None,
        compile_seconds=None,
        valid=False,
        reason=reason,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _time_gradient(
    config: TaskConfig,
    settings: TimingSettings,
    record: dict[str, Any],
    clocks: Clocks,
    on_stage: Callable[[str], None],
) -> StepProgram | None:
    """Fills `record` with what the gradient step takes. Returns its program, or None if it is invalid."""
    try:
        _refuse_hopeless(config, settings)
        on_stage("compiling")
        program = compile_program(
            config.build(), repeats=settings.repeats, num_tasks=settings.num_tasks, clock=clocks.wall
        )
        record |= {
            "compile_seconds": program.compile_seconds,
            "temporary_bytes": program.temporary_bytes,
        }
        _refuse_large(program, settings.max_bytes)
        on_stage("running")
        _measure(program, record, settings, clocks)
    except RefusedError as refused:
        record["reason"] = str(refused)
    except DatasetTooLargeError as error:
        record["reason"] = f"too large: {error}"
    except DatasetNotPreparedError:
        raise  # says nothing about the configuration: the data can be prepared, and then it runs
    except Exception as error:  # a failing configuration is a measurement, whatever it fails with
        record |= {"reason": _first_line(error), "seconds_per_step": None}
    else:
        return program
    return None


def _measure(program: StepProgram, record: dict[str, Any], settings: TimingSettings, clocks: Clocks) -> None:
    """Fills `record` with what is known so far, so that a refusal keeps the seconds that led to it."""
    limit = settings.max_seconds_per_step
    per_step = program.seconds(0, 1, clocks.wall) / program.num_tasks
    if per_step < PATIENCE * limit:
        per_step = program.seconds(0, 1, clocks.wall) / program.num_tasks
    record["seconds_per_step"] = per_step
    _refuse_slow(per_step, 2 * limit)  # near the limit, one run does not decide
    runs = timed_runs(
        program,
        clocks,
        repeats=settings.repeats,
        runs=settings.runs,
        target_seconds=settings.target_seconds,
        num_steps=settings.num_steps,
    )
    probe = float(np.median(runs.probe))
    repeats = np.median(runs.relative, axis=0) * probe
    median = statistics.median(repeats.tolist())
    record |= {
        "seconds_per_step": median,
        "probe_seconds": probe,
        "num_steps": runs.num_steps,
        "relative_spread": float(np.ptp(repeats) / median),
        "relative_noise": float(np.median(np.ptp(runs.relative, axis=0) * probe / repeats)),
        "cpu_share": round(float(min(1.0, runs.cpu_share.mean())), 3),
    }
    _refuse_slow(median, limit)
    record["valid"] = True


def _time_update(
    program: StepProgram, settings: TimingSettings, record: dict[str, Any], clocks: Clocks
) -> None:
    """Fills `record` with what the update takes, at the speed that the gradient step was measured at."""
    try:
        record["update_seconds"] = time_update(
            program.params(),
            settings.update,
            clocks,
            runs=settings.runs,
            target_seconds=settings.target_seconds,
            probe=record["probe_seconds"],
        )
    except Exception as error:  # the optimizer's failure: the gradient step was measured, and stands
        record["update_reason"] = _first_line(error)


def _timing_here(record: dict[str, Any]) -> StepTiming:
    return StepTiming.model_validate(record | {"load": load_average(), "machine": this_machine()})


def _refuse_hopeless(config: TaskConfig, settings: TimingSettings) -> None:
    """Refuses what no processor core could run in time; an accelerator is given the chance."""
    if jax.default_backend() != "cpu":
        return
    flops = config.approximate_cost()["flops_per_step"]
    least = flops / (MAX_FLOPS_PER_SECOND * this_machine().threads)
    if least > settings.max_seconds_per_step:
        raise RefusedError(
            f"too slow: {flops:.3g} operations per step cannot be done in {settings.max_seconds_per_step:g} s"
        )


def _refuse_large(program: StepProgram, max_bytes: int | None) -> None:
    needed, limit = program.needed_bytes, device_memory() if max_bytes is None else max_bytes
    if needed is not None and limit is not None and needed > limit:
        raise RefusedError(
            f"too large: needs {needed / 2**20:.0f} MiB of memory, more than {limit / 2**20:.0f} MiB"
        )


def _refuse_slow(seconds: float, limit: float) -> None:
    if seconds > limit:
        raise RefusedError(f"too slow: {seconds:.3g} s per step, more than {limit:g} s")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__
