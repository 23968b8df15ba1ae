"""Failures of the asynchronous learner's units and workers: who is blamed, what goes on, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from asynchronous_runs import run, steps

from curriculum.asynchronous.assignment import Assignment
from curriculum.asynchronous.lookout import NO_WORKER_SECONDS
from curriculum.asynchronous.simulated_stream import SimulatedStream, stand_in_result
from curriculum.errors import AllTasksFailedError, NoWorkersError
from curriculum.events import TaskLeftOut, Validated
from curriculum.phase import Phase
from curriculum.work_stream import Finished
from curriculum.worker import WorkResult, WorkUnit
from lopt.config import derive
from task_generator.task_config import TaskConfig


@pytest.fixture
def phase(tiny_phase: Phase) -> Phase:
    return derive(tiny_phase, mode="asynchronous", outer_steps=6, validate_every=3, checkpoint_every=3)


def test_a_task_that_always_fails_is_named_and_left_out(
    phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    second = tiny_tasks[1].canonical_json()
    fails = lambda unit, worker: "ValueError: no" if unit.task == second else ""
    events = run(phase, tiny_tasks, SimulatedStream(2, fails=fails))
    (left_out,) = [e for e in events if isinstance(e, TaskLeftOut)]
    assert left_out.task == tiny_tasks[1].label
    assert left_out.reasons == ("ValueError: no",) * 3
    assert [e.outer_step for e in steps(events)] == [1, 2, 3, 4, 5, 6]
    assert [len(e.per_task) for e in events if isinstance(e, Validated)] == [1, 1, 1]


def test_a_failure_now_and_then_is_tried_again(phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    counter = iter(range(10_000))
    fails = lambda unit, worker: "lost" if next(counter) % 3 == 0 else ""
    events = run(phase, tiny_tasks, SimulatedStream(2, fails=fails))
    assert not [e for e in events if isinstance(e, TaskLeftOut)]
    assert steps(events)[-1].metrics["failed_units"] > 3


def test_a_task_is_not_blamed_for_a_worker_that_was_lost_while_it_waited(
    phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    """The first task kills every worker that it is on. The second, behind it, has done nothing wrong."""
    first = tiny_tasks[0].canonical_json()

    class Deadly(SimulatedStream):
        def wait(self, seconds: float) -> list[Finished]:
            (finished,) = super().wait(seconds) or (None,)
            if finished is None or not finished.failure:
                return [] if finished is None else [finished]
            waiting = [tag for _, tag, _, _ in self.pending]
            self.pending.clear()
            lost = [Finished(tag, None, "its worker was lost", had_begun=False) for tag in waiting]
            return [finished, *lost]

    fails = lambda unit, worker: "its worker was lost" if unit.task == first else ""
    events = run(phase, tiny_tasks, Deadly(1, fails=fails))
    assert [e.task for e in events if isinstance(e, TaskLeftOut)] == [tiny_tasks[0].label]
    assert steps(events)[-1].outer_step == phase.outer_steps


def test_a_unit_that_never_ends_is_given_up(phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    second = tiny_tasks[1].canonical_json()
    seconds = lambda unit, worker: 1e9 if unit.task == second and worker == "w1" else 1.0
    patient = derive(phase, unit_timeout=50.0, max_tries=10)
    stream = SimulatedStream(3, seconds)
    events = run(patient, tiny_tasks, stream)
    assert steps(events)[-1].outer_step == 6
    assert stream.given_up


def test_when_every_task_fails_it_ends_and_says_why(phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    with pytest.raises(
        AllTasksFailedError, match="all 2 tasks of phase 'tiny' failed 3 times in a row; the last: no"
    ):
        run(phase, tiny_tasks, SimulatedStream(2, fails=lambda unit, worker: "no"))


def test_workers_that_are_gone_are_waited_for_and_then_it_ends(
    phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    stream = SimulatedStream(2)
    names, stream.names = stream.names, []
    started = stream.now
    with pytest.raises(NoWorkersError, match="no worker for 120 s, at outer step 0"):
        run(phase, tiny_tasks, stream)
    assert stream.now - started <= NO_WORKER_SECONDS + 2

    class Returning(SimulatedStream):
        """All workers are gone from 3 s to 60 s, and with them what they had."""

        def workers(self) -> Sequence[str]:
            return [] if 3 < self.now < 60 else names

        def wait(self, seconds: float) -> list[Finished]:
            if self.workers():
                return super().wait(seconds)
            lost = [Finished(tag, None, "its worker was lost") for _, tag, _, _ in self.pending]
            self.pending.clear()
            self.now += 1.0
            self.free_at = dict.fromkeys(names, self.now)
            return lost

    returned = steps(run(phase, tiny_tasks, Returning(2)))
    assert returned[-1].outer_step == 6
    assert returned[-1].metrics["failed_units"] >= 1


def test_without_a_task_that_was_left_out_the_best_begins_anew(
    phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    """The second task's loss is 100 until it fails: after that the mean of the rest is no improvement."""
    second, broken = tiny_tasks[1].canonical_json(), []

    def result(unit: WorkUnit, theta: Any) -> WorkResult:
        loss = 100.0 if unit.task == second else float(len(broken))  # worse from then on
        return stand_in_result(unit, theta)._replace(meta_loss=loss)

    def fails(unit: WorkUnit, worker: str) -> str:
        if unit.outer_step == 4 and unit.task == second:
            broken.append(unit)
        return "no" if broken and unit.task == second else ""

    events = run(phase, tiny_tasks, SimulatedStream(2, fails=fails, result=result))
    validations = [e for e in events if isinstance(e, Validated)]
    assert [len(e.per_task) for e in validations] == [2, 2, 1]
    last = events[-1].state
    assert float(last.best_validation) == validations[-1].meta_loss == len(broken)


def test_who_waits_behind_a_unit_that_never_ends_is_not_blamed(
    phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    first = tiny_tasks[0].canonical_json()

    class Stuck(SimulatedStream):
        """One worker; what is given up frees it."""

        def give_up(self, tag: int) -> None:
            super().give_up(tag)
            self.free_at = dict.fromkeys(self.names, self.now)

    seconds = lambda unit, worker: 1e9 if unit.task == first else 1.0
    impatient = derive(phase, unit_timeout=50.0)
    events = run(impatient, tiny_tasks, Stuck(1, seconds))
    assert [e.task for e in events if isinstance(e, TaskLeftOut)] == [tiny_tasks[0].label]
    assert steps(events)[-1].outer_step == phase.outer_steps


def test_of_a_message_that_was_lost_whole_only_what_fails_alone_is_blamed() -> None:
    assignment = Assignment(2, max_tries=1)
    group = assignment.next_group("w", 4)
    assert (len(group), set(group)) == (4, {0, 1})
    assignment.suspect(group)
    for task in group:
        assignment.give_back(task)
    (innocent,) = assignment.next_group("w", 4)
    assignment.succeeded(innocent)
    groups = [assignment.next_group("w", 4) for _ in range(4)]
    alone = [group for group in groups if len(group) == 1]
    assert alone
    assert set(alone) == {(1 - innocent,)}
    assert assignment.failed(1 - innocent, "it was this one")
    assert assignment.active == [innocent]
    assert assignment.next_group("w", 3) == (innocent,) * 3
