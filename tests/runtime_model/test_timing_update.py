"""An optimizer's update is timed by itself, as the gradient step is, and what goes wrong with it is its own."""

from __future__ import annotations

import time
from itertools import pairwise

import jax.numpy as jnp
import optax
import pytest
from simulated_timing import QUICK, Simulated, StepClock, bowl

import runtime_model.update_program
from lopt.config import derive
from runtime_model.speed_probe import probe_seconds
from runtime_model.timed_runs import Clocks
from runtime_model.timing import time_step
from runtime_model.update_program import UPDATES, compile_update, time_update


@pytest.mark.parametrize("name", ["adam", "pacer"])
def test_an_update_is_timed_by_itself(name: str) -> None:
    params = {"w": jnp.ones((64, 64), jnp.float32), "b": jnp.ones(64, jnp.float32)}
    clocks = Clocks(time.perf_counter, time.process_time, time.perf_counter)
    probe = probe_seconds(time.perf_counter)
    seconds = time_update(params, name, clocks, runs=1, target_seconds=0.002, probe=probe)
    assert 1e-7 < seconds < 0.1


def test_an_update_is_timed_as_the_gradient_step_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """3e-5 s per update at probes of 1 ms are 6e-5 s at a probe of 2 ms. Dispatch, one run that was too fast, and
    the clock on the wall, which something else lets run, do not count."""
    simulated = Simulated()
    simulated.num_tasks = 1
    simulated.install_probe(monkeypatch)
    monkeypatch.setattr(runtime_model.update_program, "compile_update", lambda *_: simulated)
    # One run to warm up, three of no steps, three trials each of 1, 4, 16 and 64 steps; then what is timed.
    simulated.delay = {16: -0.005}
    clocks = Clocks(StepClock(1.0), simulated.clock, simulated.clock)
    seconds = time_update({}, "adam", clocks, runs=3, target_seconds=0.01, probe=2e-3)
    assert simulated.num_runs == 19
    assert seconds == pytest.approx(6e-5, rel=1e-6)


def test_no_two_updates_in_a_row_have_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what depends on the gradient alone would be computed once, before the loop."""
    monkeypatch.setitem(UPDATES, "plain", lambda: optax.with_extra_args_support(optax.sgd(1.0)))
    program = compile_update({"w": jnp.zeros((2, 3), jnp.float32)}, "plain")
    after = [
        program.run(program.params, program.state, program.grads, jnp.int32(steps))["w"] for steps in range(4)
    ]
    gradients = [before - now for before, now in pairwise(after)]
    for one, next_one in pairwise(gradients):
        assert (jnp.abs(one - next_one) > 1e-4).all()


def test_a_failing_update_leaves_the_gradient_steps_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> optax.GradientTransformationExtraArgs:
        raise RuntimeError("no room for its state\nand a long trace")

    monkeypatch.setitem(UPDATES, "adam", make)
    timing = time_step(bowl(), derive(QUICK, update="adam"))
    assert timing.valid
    assert timing.reason == ""
    assert timing.seconds_per_step is not None
    assert (timing.update_optimizer, timing.update_seconds) == ("adam", None)
    assert timing.update_reason == "RuntimeError: no room for its state"
