"""Telemetry of an outer step: closed forms, what is counted, and that measuring changes no bit of theta."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from curriculum.asynchronous.errands import part_of
from curriculum.asynchronous.gradient_batch import GradientBatch
from curriculum.asynchronous.simulated_stream import SimulatedStream
from curriculum.events import OuterStepDone
from curriculum.gradient_size import squared_norm
from curriculum.learner import init_learner
from curriculum.meta_train import meta_train
from curriculum.meta_train_asynchronously import meta_train_asynchronously
from curriculum.phase import Phase
from curriculum.telemetry import NO_COST, GradientTrace, StepTelemetry, TaskLoss, UnitTally, spread
from curriculum.unit_cost import CostTimer, UnitCost, timed
from curriculum.worker import InProcessWorkerPool, WorkResult, WorkUnit, run_work_unit
from lopt.architectures.pacer import PacerConfig
from lopt.config import derive
from task_generator.task_config import TaskConfig

CONFIG = PacerConfig()


def result(gradient: Any, loss: float = 1.0, cost: UnitCost = NO_COST) -> WorkResult:
    tree = {"a": np.asarray(gradient, np.float32)}
    return WorkResult(tree, loss, 10.0, {}, squared_norm=squared_norm(tree), cost=cost)


def add(batch: GradientBatch, task: int, one: WorkResult, age: int) -> None:
    part, gradient = part_of(task, one)
    batch.add([part], lambda: gradient, age, 5)


def test_variance_and_noise_share_are_what_they_say() -> None:
    """Against the definition, in float64, on gradients far from zero."""
    rng = np.random.default_rng(0)
    gradients = 3.0 + rng.normal(size=(7, 50))
    mean = gradients.mean(0)
    variance, share = spread(float(np.sum(gradients**2)), 7, float(np.linalg.norm(mean)))
    assert variance == pytest.approx(np.trace(np.cov(gradients.T)), rel=1e-10)
    assert share == pytest.approx(variance / 7 / np.sum(mean**2), rel=1e-10)


def test_noise_share_is_one_for_noise_and_zero_for_agreement() -> None:
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(400):
        gradients = rng.normal(size=(8, 200))
        shares.append(spread(float(np.sum(gradients**2)), 8, float(np.linalg.norm(gradients.mean(0))))[1])
    assert abs(np.mean(shares) - 1.0) < 4 * np.std(shares) / np.sqrt(400) + 0.02  # a ratio: slightly biased
    assert spread(4 * 25.0, 4, 5.0) == (0.0, 0.0)
    assert np.isnan(spread(25.0, 1, 5.0)).all()
    assert np.isnan(spread(2.0, 2, 0.0)[1])  # g and −g


def test_cosine_with_the_gradient_before() -> None:
    trace = GradientTrace()
    assert trace.follow({"a": np.float32([3, 4])})[0] == 5.0
    size, cosine = trace.follow({"a": np.float32([0, 2])})
    assert (size, cosine) == (2.0, pytest.approx(0.8))
    assert trace.follow({"a": np.float32([0, -1])})[1] == pytest.approx(-1.0)
    assert np.isnan(trace.follow({"a": np.zeros(2, np.float32)})[1])
    assert np.isnan(GradientTrace().follow({"a": np.ones(2, np.float32)})[1])


def test_a_batch_counts_what_it_takes_in_and_what_it_drops(tiny_tasks: tuple[TaskConfig, ...]) -> None:
    batch = GradientBatch({"a": np.zeros(2, np.float32)})
    cost = UnitCost(1.0, 3.0)
    add(batch, 0, result([2, 0], 1.0, cost), 0)
    add(batch, 1, result([0, 2], 4.0, cost), 2)
    add(batch, 1, result([0, 2], 2.0, UnitCost(0.0, 4.0)), 2)
    add(batch, 1, result([0, 2], 2.0, UnitCost(0.0, 4.0)), 6)
    add(batch, 0, result([np.nan, 2]), 1)
    tally = batch.tally
    mean, _, _ = batch.take()
    told = tally.telemetry(*GradientTrace().follow(mean), tiny_tasks)
    assert [(task.number, task.meta_loss) for task in told.tasks] == [(0, 1.0), (1, 3.0)]
    assert [task.label for task in told.tasks] == [task.label for task in tiny_tasks]
    assert told.families == {"mlp": 2.0}
    assert told.staleness == {0: 1, 1: 1, 2: 2, 6: 1}
    assert (told.num_units, told.num_stale, told.num_not_finite) == (5, 1, 1)
    assert told.drop_rate == 0.4
    assert told.compile_share == 2.0 / 16.0
    assert told.gradient_variance == pytest.approx(np.var([[2, 0], [0, 2], [0, 2]], axis=0, ddof=1).sum())
    assert told.metrics()["worker_seconds"] == 16.0
    assert batch.tally is not tally
    assert batch.tally.telemetry(1.0, 0.0, tiny_tasks).num_units == 0


def test_a_step_without_numbers_says_so() -> None:
    nothing = StepTelemetry()
    assert np.isnan([value for name, value in nothing.metrics().items() if name != "worker_seconds"]).all()
    both = StepTelemetry(tasks=(TaskLoss(0, "x", "conv", 1.0), TaskLoss(1, "y", "mlp", 2.0)))
    assert both.metrics()["meta_loss_conv"] == 1.0


def test_spans_inside_one_another_count_once() -> None:
    timer = CostTimer()
    for span in ((1.0, 2.0), (2.5, 3.0), (0.5, 4.0), (6.0, 6.5)):  # a trace holds those of what it calls
        timer.add_span(*span)
    timer.stop(10.0)
    assert timer.cost == UnitCost(4.0, 6.0)
    timer.stop(3.0)
    assert timer.cost == UnitCost(3.0, 0.0)  # two clocks: never more than there was


def test_compilation_is_told_from_execution() -> None:
    @jax.jit
    def slow_to_compile(x: jax.Array) -> jax.Array:
        time.sleep(0.2)  # while tracing
        return x + 1.0

    x = jnp.ones(3)
    with timed() as whole:
        with timed() as first:
            slow_to_compile(x).block_until_ready()
        with timed() as second:
            time.sleep(0.1)
            slow_to_compile(x).block_until_ready()
    assert first.cost.compile_seconds >= 0.2
    assert second.cost.compile_seconds == 0.0
    assert second.cost.run_seconds >= 0.1
    assert whole.cost.compile_seconds == pytest.approx(first.cost.compile_seconds)


def test_a_unit_says_when_it_compiled(tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    how = derive(tiny_phase.estimator, min_horizon=2, max_horizon=2)  # a program that no other test has made
    unit = WorkUnit(
        tiny_tasks[0].canonical_json(), how.canonical_json(), CONFIG.canonical_json(), (1, 2), None
    )
    theta = jax.tree.map(np.asarray, CONFIG.build().init_theta(jax.random.key(0)))
    first, second = run_work_unit(unit, theta), run_work_unit(unit, theta)
    assert first.cost.compile_seconds > 0.0
    assert second.cost.compile_seconds == 0.0
    assert second.cost.run_seconds > 0.0


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_measuring_changes_no_bit_of_theta(
    mode: str, tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = derive(tiny_phase, mode=mode, outer_steps=3)
    theta = CONFIG.build().init_theta(jax.random.key(0))

    def gradient(unit: WorkUnit, theta: Any) -> WorkResult:
        rng = np.random.default_rng(list(unit.seed))
        pulled = jax.tree.map(lambda x: (rng.normal(size=x.shape) + x).astype(np.float32), theta)
        return WorkResult(pulled, float(rng.normal()), 10.0, {}, squared_norm=squared_norm(pulled))

    class Pool(InProcessWorkerPool):
        def run_all(self, fn: Any, payloads: Any, **_: Any) -> Any:
            return [gradient(unit, theta) for unit, theta, _ in payloads]

    def run() -> list[OuterStepDone]:
        state = init_learner(phase, theta)
        if mode == "synchronous":
            events = meta_train(phase, tiny_tasks, CONFIG, state, Pool(), seed=5)
        else:
            stream = SimulatedStream(3, result=gradient)
            events = meta_train_asynchronously(
                phase, tiny_tasks, CONFIG, state, stream, seed=5, clock=lambda: stream.now
            )
        return [event for event in events if isinstance(event, OuterStepDone)]

    measured = run()
    assert len(measured) == 3
    assert measured[-1].telemetry.num_units >= 2
    assert np.isfinite(measured[-1].metrics["gradient_noise_share"])
    assert abs(measured[-1].metrics["gradient_cosine"]) <= 1.0
    monkeypatch.setattr(UnitTally, "received", lambda *_: None)
    monkeypatch.setattr(UnitTally, "used", lambda *_: None)
    monkeypatch.setattr(UnitTally, "telemetry", lambda *_: StepTelemetry())
    monkeypatch.setattr(GradientTrace, "follow", lambda *_: (0.0, 0.0))
    for seen, unseen in zip(measured, run(), strict=True):
        assert unseen.telemetry == StepTelemetry()
        for a, b in zip(jax.tree.leaves(seen.state), jax.tree.leaves(unseen.state), strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_squared_norm_shows_what_is_not_finite() -> None:
    assert squared_norm({"a": np.float32([3, 4]), "b": np.float32(12)}) == 169.0
    assert np.isfinite(squared_norm({"a": np.full(4, 3e38, np.float32)}))  # in float32 it would overflow
    assert np.isnan(squared_norm({"a": np.float32([1, np.nan])}))
    assert np.isinf(squared_norm({"a": np.float32([1, -np.inf])}))
