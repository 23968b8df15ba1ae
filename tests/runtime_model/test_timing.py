"""A timing records what it saw, and everything that goes wrong is a record too."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from simulated_timing import QUICK, BowlConfig, Simulated, StepClock, bowl

import runtime_model.timing
from lopt.config import derive
from lopt.registry import UnknownNameError
from runtime_model.machine import this_machine
from runtime_model.step_program import memory
from runtime_model.timing import RefusedError, StepTiming, TimingSettings, time_step
from task_generator.datasets.placement import DatasetTooLargeError
from task_generator.datasets.prepared import DatasetNotPreparedError, use_reader
from task_generator.task_config import parse_task_config


def test_a_real_configuration_is_timed() -> None:
    family = {"family": "mlp", "hidden_size": 8, "num_layers": 1, "image_size": 4, "batch_size": 4}
    config = parse_task_config({"family": {**family, "dataset": "digits", "activation": "relu"}})
    stages: list[str] = []
    gradients: list[StepTiming] = []
    adam = derive(QUICK, update="adam")
    timing = time_step(config, adam, on_stage=stages.append, on_gradient=gradients.append)
    assert stages == ["compiling", "running", "timing the update"]
    (gradient,) = gradients  # what stands if the update takes the process down
    assert derive(timing, update_seconds=None, load=gradient.load) == gradient
    assert timing.valid
    assert timing.seconds_per_step is not None
    assert timing.update_seconds is not None
    assert 1e-7 < timing.update_seconds < 0.01
    assert timing.update_optimizer == "adam"
    assert timing.max_seconds_per_step == QUICK.max_seconds_per_step
    assert timing.seconds_with_update == timing.seconds_per_step + timing.update_seconds
    assert 1e-7 < timing.seconds_per_step < 0.05
    assert timing.family == "mlp"
    assert timing.config_fingerprint == config.fingerprint()
    assert parse_task_config(timing.config_json) == config
    assert timing.machine == this_machine()
    assert timing.probe_seconds is not None
    assert 1e-5 < timing.probe_seconds < 0.1
    assert StepTiming.model_validate(json.loads(timing.canonical_json())) == timing


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
    timing = time_step(bowl(fails=True), QUICK)
    assert not timing.valid
    assert timing.reason == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    assert timing.seconds_per_step is None
    assert timing.family == "bowl"


def test_a_slow_configuration_is_refused_and_its_seconds_are_kept() -> None:
    timing = time_step(bowl(), derive(QUICK, max_seconds_per_step=0.5), clock=StepClock(3.0))
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
    timing = time_step(bowl(), derive(QUICK, max_bytes=-1))
    assert not timing.valid
    assert timing.reason.startswith("too large: needs ")
    assert timing.seconds_per_step is None


def test_arguments_and_results_count_as_memory_and_what_is_known_of_a_refused_program_is_kept() -> None:
    """The bowl's temporary memory would fit; its state, passed in and out, does not fit beside it."""
    temporary = time_step(bowl(), QUICK).temporary_bytes
    assert temporary is not None
    timing = time_step(bowl(), derive(QUICK, max_bytes=temporary))
    assert timing.reason.startswith("too large: needs ")
    assert timing.temporary_bytes == temporary
    assert timing.compile_seconds is not None


def test_without_a_limit_of_its_own_a_program_may_need_what_the_device_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unlimited = derive(QUICK, max_bytes=None)
    assert time_step(bowl(), unlimited).valid
    monkeypatch.setattr(runtime_model.timing, "device_memory", lambda: 1)
    assert time_step(bowl(), unlimited).reason.startswith("too large: needs ")
    monkeypatch.setattr(runtime_model.timing, "device_memory", lambda: None)  # it does not say
    assert time_step(bowl(), unlimited).valid


def test_what_results_share_with_arguments_counts_once() -> None:
    class Compiled(NamedTuple):
        argument_size_in_bytes: int = 100
        output_size_in_bytes: int = 40
        temp_size_in_bytes: int = 7
        alias_size_in_bytes: int = 30

        def memory_analysis(self) -> Compiled:
            return self

    assert memory(Compiled()) == (7, 100 + 40 + 7 - 30)


def test_data_that_do_not_fit_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(_: BowlConfig) -> Any:
        raise DatasetTooLargeError("dataset 'imagenet64' at 64×64 takes 15 GiB")

    monkeypatch.setattr(BowlConfig, "build", build)
    timing = time_step(bowl(), QUICK)
    assert not timing.valid
    assert timing.reason == "too large: dataset 'imagenet64' at 64×64 takes 15 GiB"


def test_absent_data_are_no_measurement() -> None:
    family = {"family": "mlp", "hidden_size": 8, "num_layers": 1, "image_size": 4, "batch_size": 4}
    config = parse_task_config({"family": {**family, "dataset": "cifar10"}})
    with use_reader(NothingPrepared()), pytest.raises(DatasetNotPreparedError, match="keirin data prepare"):
        time_step(config)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="repeats"):
        TimingSettings(repeats=0)
    with pytest.raises(UnknownNameError, match="adam"):
        time_step(bowl(), derive(QUICK, update="adma"))


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
