"""The asynchronous learner on pretended workers: staleness, shares, failures, control, and an end in every case."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from asynchronous_runs import CONFIG, THETA, run, steps

from curriculum.asynchronous.assignment import SLACK, Assignment
from curriculum.asynchronous.errands import Part
from curriculum.asynchronous.gradient_batch import GradientBatch
from curriculum.asynchronous.simulated_stream import SimulatedStream, stand_in_result
from curriculum.control import Control, controlled
from curriculum.events import CheckpointDue, Controlled, OuterStepDone, Paused, Validated
from curriculum.learner import init_learner
from curriculum.meta_train_asynchronously import meta_train_asynchronously
from curriculum.phase import Phase
from curriculum.work_stream import InProcessWorkStream
from curriculum.worker import AsyncUnit, WorkResult, WorkUnit, run_async_unit
from lopt.architectures.pacer import PacerConfig
from lopt.config import derive
from task_generator.task_config import TaskConfig


@pytest.fixture
def phase(tiny_phase: Phase) -> Phase:
    return derive(tiny_phase, mode="asynchronous", outer_steps=6, validate_every=3, checkpoint_every=3)


def test_it_runs_to_its_end_and_validates_on_the_way(
    phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    events = run(phase, tiny_tasks, SimulatedStream(3))
    assert [e.outer_step for e in steps(events)] == [1, 2, 3, 4, 5, 6]
    assert [e.outer_step for e in events if isinstance(e, Validated)] == [0, 3, 6]
    assert all(len(e.per_task) == 2 for e in events if isinstance(e, Validated))
    assert [e.outer_step for e in events if isinstance(e, CheckpointDue)] == [0, 3, 6]
    assert isinstance(events[-1], CheckpointDue)
    last = events[-1].state
    first_validation = next(e for e in events if isinstance(e, Validated))
    assert first_validation.meta_loss == 0.0  # at the initial theta, though workers trained meanwhile
    assert float(last.best_validation) <= first_validation.meta_loss


def test_real_units_run_in_this_process(phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    state = init_learner(phase, CONFIG.build().init_theta(jax.random.key(0)))
    short = derive(phase, outer_steps=2, validate_every=2)
    events = run(short, tiny_tasks, InProcessWorkStream(), state=state)
    assert [e.outer_step for e in steps(events)] == [1, 2]
    assert all(np.isfinite(e.meta_loss) and e.gradient_norm > 0 for e in steps(events))
    assert "meta_loss_mlp" in steps(events)[0].metrics


def test_what_is_too_old_is_dropped_and_counted(phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    """One worker takes 20 s a unit, three take one: its theta is many steps old by then."""
    slow = lambda unit, worker: 20.0 if worker == "w0" else 1.0
    strict = derive(phase, max_staleness=1, outer_steps=60, validate_every=60, checkpoint_every=60)
    kept = derive(strict, max_staleness=1_000)
    dropped = steps(run(strict, tiny_tasks, SimulatedStream(4, slow)))[-1].metrics
    assert dropped["dropped_as_stale"] >= 3
    assert (
        max(e.metrics["staleness_max"] for e in steps(run(strict, tiny_tasks, SimulatedStream(4, slow)))) <= 1
    )
    everything = steps(run(kept, tiny_tasks, SimulatedStream(4, slow)))
    assert everything[-1].metrics["dropped_as_stale"] == 0
    assert max(e.metrics["staleness_max"] for e in everything) > 5


@pytest.mark.parametrize("num_workers", [2, 3, 16])
def test_a_tasks_share_does_not_depend_on_its_speed(
    num_workers: int, phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    """The second task takes ten times as long; both give equally many meta-gradients, within what is in flight."""
    second = tiny_tasks[1].canonical_json()
    seconds = lambda unit, worker: 10.0 if unit.task == second else 1.0
    long = derive(phase, outer_steps=100, validate_every=100, checkpoint_every=100, max_staleness=100)
    last = steps(run(long, tiny_tasks, SimulatedStream(num_workers, seconds)))[-1]
    assert last.metrics["task_share_spread"] <= SLACK + 1 + 2 * num_workers


def test_memory_of_the_learner_does_not_grow_with_what_is_waiting(
    phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    stream = SimulatedStream(50)
    run(phase, tiny_tasks, stream)
    assert stream.most_pending <= 2 * 50


def test_it_goes_on_from_a_checkpoint(phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    events = run(phase, tiny_tasks, SimulatedStream(2))
    middle = next(e.state for e in events if isinstance(e, CheckpointDue) and e.outer_step == 3)
    resumed = run(phase, tiny_tasks, SimulatedStream(2), state=jax.tree.map(np.asarray, middle))
    assert [e.outer_step for e in steps(resumed)] == [4, 5, 6]


def test_control_is_picked_up_within_one_outer_step(phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    """After the second step a person asks for batches of five and a tenth of the rate."""
    wishes: list[Control] = [Control()]
    state, stream = init_learner(phase, THETA), SimulatedStream(2)
    loop = meta_train_asynchronously(
        phase,
        tiny_tasks,
        CONFIG,
        state,
        stream,
        seed=5,
        read_control=lambda: wishes[-1],
        clock=lambda: stream.now,
    )
    seen, sizes = [], []
    for event in loop:
        seen.append(event)
        if isinstance(event, OuterStepDone):
            sizes.append(event.num_inner_steps)
            if event.outer_step == 2:
                wishes.append(Control(batch_size=5, learning_rate=1e-3))
    (change,) = [e for e in seen if isinstance(e, Controlled)]
    assert dict(change.changes) == {"batch_size": 5, "learning_rate": 1e-3}
    assert change.outer_step in (2, 3)
    assert min(sizes[3:]) >= 50.0  # five units of ten steps


def test_pause_and_stop(phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    wishes = [Control()]
    stream = SimulatedStream(2)
    loop = meta_train_asynchronously(
        phase,
        tiny_tasks,
        CONFIG,
        init_learner(phase, THETA),
        stream,
        seed=5,
        read_control=lambda: wishes[-1],
        clock=lambda: stream.now,
    )
    kinds, paused = [], 0
    for event in loop:
        kinds.append(type(event).__name__)
        if isinstance(event, OuterStepDone) and event.outer_step == 1:
            wishes.append(Control(command="pause"))
        if isinstance(event, Paused):
            paused += 1
            if paused == 3:
                wishes.append(Control())
        if isinstance(event, OuterStepDone) and event.outer_step == 4:
            wishes.append(Control(command="stop"))
    assert paused == 3
    assert kinds[-1] == "CheckpointDue"
    assert kinds.count("OuterStepDone") in (4, 5)


def test_a_wish_that_does_not_go_with_the_phase_is_refused(tiny_phase: Phase) -> None:
    with pytest.raises(ValueError, match="phase 'tiny' is synchronous: it has no `batch_size` to change"):
        controlled(tiny_phase, Control(batch_size=3))
    assert controlled(tiny_phase, Control(learning_rate=0.5)).theta_optimizer.learning_rate == 0.5
    assert controlled(tiny_phase, Control()) == tiny_phase


def test_tasks_are_drawn_anew(phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    drawn: list[int] = []

    def sample(number: int) -> TaskConfig:
        drawn.append(number)
        return tiny_tasks[number % 2]

    restless = derive(phase, resample_probability=0.5, outer_steps=20, validate_every=20)
    last = steps(run(restless, tiny_tasks, SimulatedStream(2), sample_task=sample))[-1]
    assert last.metrics["resampled_tasks"] == len(drawn)
    assert 8 <= len(drawn) <= 35  # of about 42 units
    assert drawn == list(range(2, 2 + len(drawn)))
    after = init_learner(restless, THETA)._replace(outer_step=jax.numpy.int32(7))
    first = list(drawn)
    run(restless, tiny_tasks, SimulatedStream(2), sample_task=sample, state=after)
    assert not set(first) & set(drawn[len(first) :])  # a run that goes on draws other tasks


def test_validations_stay_with_the_first_tasks(phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    """Whatever is drawn meanwhile: losses of other tasks would not compare."""
    measured: list[str] = []

    def note(unit: WorkUnit, theta: Any) -> WorkResult:
        if unit.sigma == 0.0:
            measured.append(unit.task)
        return stand_in_result(unit, theta)

    family = tiny_tasks[0].family
    sample = lambda number: TaskConfig(family=derive(family, batch_size=10 + number % 50))
    restless = derive(phase, resample_probability=1.0)
    events = run(restless, tiny_tasks, SimulatedStream(2, result=note), sample_task=sample)
    assert steps(events)[-1].metrics["resampled_tasks"] > 4
    assert sorted(measured) == sorted([task.canonical_json() for task in tiny_tasks] * 3)
    assert all(e.num_inner_steps == 20.0 for e in events if isinstance(e, Validated))


def never() -> Any:
    raise AssertionError("there is nothing to add")


def test_a_batch_drops_what_is_not_finite_and_averages_the_rest() -> None:
    batch = GradientBatch(THETA)
    ones = jax.tree.map(np.ones_like, THETA)
    threes = jax.tree.map(lambda x: 3 * x, ones)
    good = WorkResult((), 1.0, 7.0, {"horizon": 4.0}, squared_norm=7.0)
    bad = good._replace(squared_norm=float("nan"))
    infinite = good._replace(meta_loss=float("inf"))
    batch.add([Part(0, good)], lambda: ones, 0, 5)
    batch.add([Part(1, good), Part(0, bad), Part(1, None, "no")], lambda: threes, 4, 5)
    batch.add([Part(0, infinite)], never, 0, 5)
    batch.add([Part(0, good)], never, 6, 5)
    assert batch.count == 2
    mean, metrics, num_inner_steps = batch.take()
    np.testing.assert_array_equal(mean["a"], [2, 2, 2])
    assert num_inner_steps == 35.0
    assert metrics["staleness_mean"] == 2.0
    assert (metrics["dropped_as_stale"], metrics["dropped_as_not_finite"]) == (1.0, 2.0)
    with pytest.raises(ValueError, match="no meta-gradient"):
        batch.take()


def test_a_worker_keeps_to_what_it_has_compiled() -> None:
    """Eight tasks, two workers: each comes to do four of them, and none falls behind by more than the slack."""
    assignment = Assignment(8)
    done: dict[str, list[int]] = {"a": [], "b": []}
    for _ in range(100):
        for worker in done:
            done[worker].append(assignment.next(worker))
    assert {worker: len(set(tasks[20:])) for worker, tasks in done.items()} == {"a": 4, "b": 4}
    assert max(assignment.issued) - min(assignment.issued) <= SLACK + 1


def test_a_lost_trajectory_starts_again_and_says_so(
    tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    phase = derive(
        tiny_phase,
        estimator={
            "estimator": "persistent_es",
            "sigma": 0.03,
            "num_pairs": 1,
            "num_tasks": 1,
            "unroll_length": 2,
            "min_horizon": 5,
            "max_horizon": 5,
            "num_final_batches": 1,
            "stagger": False,
        },
    )
    theta = jax.tree.map(np.asarray, CONFIG.build().init_theta(jax.random.key(0)))
    unit = WorkUnit(
        tiny_tasks[0].canonical_json(),
        phase.estimator.canonical_json(),
        CONFIG.canonical_json(),
        (1, 2, 3),
        None,
    )
    windows, flags = [], []
    for run_name, expects in (("r", False), ("r", True), ("r", True), ("other", True)):
        result, restarted = run_async_unit(AsyncUnit(unit, run_name, expects), theta)
        windows.append(result.metrics["window"])
        flags.append(restarted)
        assert result.state == ()
    assert windows == [2.0, 2.0, 1.0, 2.0]
    assert flags == [False, False, False, True]  # the last worker was expected to have one
    other = PacerConfig(controller_size=3)  # of another size: a run of it must not go on with these
    bigger = jax.tree.map(np.asarray, other.build().init_theta(jax.random.key(0)))
    unit = unit._replace(optimizer=other.canonical_json())
    result, restarted = run_async_unit(AsyncUnit(unit, "other", False), bigger)
    assert (result.metrics["window"], restarted) == (2.0, False)


def test_a_unit_is_told_the_outer_step_that_it_was_sent_in(
    phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    """With one worker that has two units in hand, a batch of two: 0, 0, then one step behind for ever."""
    sent: list[int] = []

    def note(unit: WorkUnit, theta: Any) -> WorkResult:
        if unit.sigma is None:
            sent.append(unit.outer_step)
        return stand_in_result(unit, theta)

    run(derive(phase, max_staleness=9), tiny_tasks, SimulatedStream(1, result=note))
    assert sent[:2] == [0, 0]
    assert sent == sorted(sent)
    assert set(sent) == set(range(6))
