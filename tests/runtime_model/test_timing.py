"""A timing records what it saw, and everything that goes wrong is a record too."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import pytest

import runtime_model.timing
from lopt.config import FrozenConfig, derive
from lopt.registry import UnknownNameError
from lopt.types import Task, TaskState
from runtime_model.machine import this_machine
from runtime_model.step_program import RefusedError, StepProgram
from runtime_model.timing import StepTiming, TimingSettings, _measure, time_step
from runtime_model.update_program import time_update
from task_generator.datasets.prepared import DatasetNotPreparedError, use_reader
from task_generator.task_config import TaskConfig, parse_task_config


class Dynamic(NamedTuple):
    """One field of each kind of axis."""

    offset: jax.Array
    shared: jax.Array


class Bowl:
    """A quadratic whose loss fails if its configuration says so."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def sample_dynamic(self, key: jax.Array) -> Dynamic:
        """Draws both fields."""
        return Dynamic(jax.random.normal(key, (3,)), jnp.asarray(2.0, jnp.float32))

    def dynamic_axes(self) -> Dynamic:
        """One per task, and one per work unit."""
        return Dynamic(cast(Any, 0), cast(Any, None))

    def task(self, dynamic: Dynamic) -> Task:
        """Returns a task whose state carries a key, as a stochastic model's may."""
        fails = self.fails

        class BowlTask:
            def init(self, key: jax.Array) -> TaskState:
                return TaskState(jnp.ones(3), {"key": key, "count": jnp.asarray(0, jnp.int32)})

            def batch(self, key: jax.Array, split: str = "train") -> jax.Array:
                return jax.random.normal(key, (3,))

            def loss(self, state: TaskState, key: jax.Array, batch: jax.Array) -> tuple[jax.Array, TaskState]:
                if fails:
                    raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand a long trace")
                distance = dynamic.shared * (state.params - dynamic.offset - batch)
                return (distance**2).sum(), state

            def normalize(self, loss: jax.Array) -> jax.Array:
                return loss

        return cast(Task, BowlTask())


class Inner(FrozenConfig):
    """Stands in for a family's configuration."""

    family: Literal["bowl"] = "bowl"


class BowlConfig(FrozenConfig):
    """Stands in for a task configuration."""

    family: Inner = Inner()
    fails: bool = False

    def approximate_cost(self) -> dict[str, float]:
        """Returns next to nothing."""
        return {"num_params": 3.0, "flops_per_step": 18.0}

    def build(self) -> Bowl:
        """Returns the family."""
        return Bowl(self.fails)


def _bowl(*, fails: bool = False) -> TaskConfig:
    return cast(TaskConfig, BowlConfig(fails=fails))


class StepClock:
    """Advances by a fixed amount whenever it is read."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


QUICK = TimingSettings(repeats=2, runs=1, target_seconds=0.002, update="none")


def test_a_real_configuration_is_timed() -> None:
    family = {"family": "mlp", "hidden_size": 8, "num_layers": 1, "image_size": 4, "batch_size": 4}
    config = parse_task_config({"family": {**family, "dataset": "digits", "activation": "relu"}})
    stages: list[str] = []
    timing = time_step(config, derive(QUICK, update="adam"), on_stage=stages.append)
    assert stages == ["compiling", "running", "timing the update"]
    assert timing.valid
    assert timing.seconds_per_step is not None
    assert timing.update_seconds is not None
    assert 1e-7 < timing.update_seconds < 0.01
    assert timing.seconds_with_update == timing.seconds_per_step + timing.update_seconds
    assert 1e-7 < timing.seconds_per_step < 0.05
    assert timing.family == "mlp"
    assert timing.config_fingerprint == config.fingerprint()
    assert parse_task_config(timing.config_json) == config
    assert timing.machine == this_machine()
    assert timing.probe_seconds is not None
    assert 1e-5 < timing.probe_seconds < 0.1
    assert StepTiming.model_validate(json.loads(timing.canonical_json())) == timing


class Simulated:
    """A machine whose clock only its work advances, and a program on it; every speed change is known.

    Args:
      slowness: How many times longer work takes, by the second it is done in.
    """

    def __init__(self, slowness: Callable[[float], float] = lambda _: 1.0) -> None:
        self.now, self.slowness, self.num_runs = 0.0, slowness, 0
        self.num_tasks, self.per_step, self.dispatch = 2, 3e-5, 4e-4
        self.delay: dict[int, float] = {}  # run number → what else it takes

    def clock(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds * self.slowness(self.now)

    def seconds(self, repeat: int, steps: int, clock: Callable[[], float]) -> float:
        """Stands in for `StepProgram.seconds`: repeat r takes 1 + r / 10 times as long."""
        started = clock()
        self.work(self.dispatch + self.delay.get(self.num_runs, 0.0))
        self.work(steps * self.num_tasks * self.per_step * (1 + repeat / 10))
        self.num_runs += 1
        return clock() - started

    def measure(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, Any]:
        def probe(clock: Callable[[], float]) -> float:
            started = clock()
            self.work(1e-3)
            return clock() - started

        monkeypatch.setattr(runtime_model.timing, "probe_seconds", probe)
        record: dict[str, Any] = {}
        settings = TimingSettings(**{"repeats": 3, "target_seconds": 0.01, **changes})
        _measure(cast(StepProgram, self), record, settings, self.clock, self.clock)
        return record


def test_seconds_are_per_step_and_task_without_dispatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The median of three repeats, 1.0, 1.1 and 1.2 times 3e-5 s."""
    record = Simulated().measure(monkeypatch)
    assert record["valid"]
    assert record["seconds_per_step"] == pytest.approx(3.3e-5, rel=1e-6)
    assert record["probe_seconds"] == pytest.approx(1e-3)
    assert record["relative_spread"] == pytest.approx(0.2 / 1.1, rel=1e-6)
    assert record["relative_noise"] == pytest.approx(0.0, abs=1e-9)
    assert record["num_steps"] * 2 * 3e-5 == pytest.approx(0.01, rel=0.05)


def test_a_slow_moment_of_the_machine_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as slow for half of the time: relative to the probes, nothing changes."""
    moody = Simulated(lambda now: 2.0 if int(now / 0.17) % 2 else 1.0)
    moody.dispatch = 0.0  # which is subtracted as it was when it was measured
    record = moody.measure(monkeypatch, runs=5)
    assert record["seconds_per_step"] / record["probe_seconds"] == pytest.approx(3.3e-2, rel=0.02)
    assert 1e-3 <= record["probe_seconds"] <= 2e-3


def test_a_busy_moment_does_not_choose_the_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any one run delayed by 20 ms, the first trials included: the runs last as long as they should."""
    for late in range(12):
        simulated = Simulated()
        simulated.delay = {late: 0.02}
        record = simulated.measure(monkeypatch)
        assert record["num_steps"] * 2 * 3e-5 == pytest.approx(0.01, rel=0.05)
        assert record["seconds_per_step"] == pytest.approx(3.3e-5, rel=1e-6)


def test_a_slow_first_step_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is touched in the first step: only a second one that is slow, too, ends it."""
    simulated = Simulated()
    simulated.delay = {0: 0.5}
    assert simulated.measure(monkeypatch)["valid"]
    simulated = Simulated()
    simulated.delay = {0: 0.5, 1: 0.5}
    with pytest.raises(RefusedError, match="too slow"):
        simulated.measure(monkeypatch)


class NothingPrepared:
    """A reader without data sets."""

    def read_images(self, name: str, image_size: int) -> None:
        return None

    def read_tokens(self, name: str) -> None:
        return None

    def count(self, name: str) -> None:
        return None

    def cached(self, name: str, key: str, make: Any) -> Any:
        return make()


def test_a_failing_loss_is_recorded_invalid_with_the_first_line_of_the_reason() -> None:
    timing = time_step(_bowl(fails=True), QUICK)
    assert not timing.valid
    assert timing.reason == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    assert timing.seconds_per_step is None
    assert timing.family == "bowl"


def test_a_slow_configuration_is_refused_and_its_seconds_are_kept() -> None:
    timing = time_step(_bowl(), derive(QUICK, max_seconds_per_step=0.5), clock=StepClock(3.0))
    assert not timing.valid
    assert timing.reason == "too slow: 3 s per step, more than 1 s"
    assert timing.seconds_per_step == pytest.approx(3.0)
    assert timing.num_steps == 0  # one step, not a measurement


def test_what_no_core_could_do_in_time_is_not_even_compiled() -> None:
    family = {"family": "mlp", "hidden_size": 16384, "num_layers": 8, "image_size": 8, "batch_size": 4096}
    config = parse_task_config({"family": {**family, "dataset": "digits"}})
    timing = time_step(config, QUICK)
    assert not timing.valid
    assert timing.reason.startswith("too slow: 4.")
    assert timing.compile_seconds is None


def test_a_program_that_needs_too_much_memory_is_refused_before_it_runs() -> None:
    timing = time_step(_bowl(), derive(QUICK, max_bytes=-1))
    assert not timing.valid
    assert timing.reason.startswith("too large: needs ")
    assert timing.seconds_per_step is None


def test_absent_data_are_no_measurement() -> None:
    family = {"family": "mlp", "hidden_size": 8, "num_layers": 1, "image_size": 4, "batch_size": 4}
    config = parse_task_config({"family": {**family, "dataset": "cifar10"}})
    with use_reader(NothingPrepared()), pytest.raises(DatasetNotPreparedError, match="keirin data prepare"):
        time_step(config)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="repeats"):
        TimingSettings(repeats=0)
    with pytest.raises(UnknownNameError, match="adam"):
        time_step(_bowl(), derive(QUICK, update="adma"))


@pytest.mark.parametrize("name", ["adam", "pacer"])
def test_an_update_is_timed_by_itself(name: str) -> None:
    params = {"w": jnp.ones((64, 64), jnp.float32), "b": jnp.ones(64, jnp.float32)}
    record = time_update(params, name, 0.002, time.perf_counter)
    assert record["update_optimizer"] == name
    assert 1e-7 < record["update_seconds"] < 0.1


def test_machines_say_how_they_differ() -> None:
    here = this_machine()
    assert here.differences(here) == []
    there = derive(here, jax_version="0.0.1", hardware="gpu:H100")
    assert here.differences(there) == [
        f"hardware gpu:H100 there, {here.hardware} here",
        f"jax 0.0.1 there, {here.jax_version} here",
    ]
    assert there.threads == 1
    assert derive(here, hardware="cpu:x:8 threads").threads == 8
