"""The asynchronous meta-training loop: workers are never idle, and theta moves whenever a batch is full.

Every worker has a unit in hand and one waiting. A finished unit's meta-gradient joins the batch unless theta has
moved more than `max_staleness` times since it was sent; a full batch is an outer step. Units that fail are tried
again, and a task whose units always fail is left out. Validations are units among the others, the longest first:
they come to an end, and at the phase's everybody waits for the last.

Not reproducible bit for bit, since what is in a batch depends on who was fast; `meta_train` is. No I/O, and time
only through the clock that is handed in.

[1] Metz et al. 2022, VeLO, App. E.1-E.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from curriculum.asynchronous.assignment import Assignment
from curriculum.asynchronous.crew import Crew
from curriculum.asynchronous.errands import Answer, run_errand
from curriculum.asynchronous.gradient_batch import GradientBatch
from curriculum.asynchronous.in_flight import InFlight, Sent
from curriculum.asynchronous.lookout import Lookout
from curriculum.asynchronous.resampling import Resampler
from curriculum.asynchronous.running_validations import RunningValidation, RunningValidations
from curriculum.asynchronous.unit_writer import UnitWriter
from curriculum.control import ReadControl, controlled
from curriculum.errors import AllTasksFailedError
from curriculum.events import (
    CheckpointDue,
    Controlled,
    LearnerEvent,
    OuterStepDone,
    Paused,
    TaskLeftOut,
    Validated,
)
from curriculum.learner import LearnerState, apply_meta_gradient
from curriculum.phase import Phase
from curriculum.telemetry import GradientTrace
from curriculum.units_of_work import transport_of
from curriculum.work_plan import WorkPlan
from curriculum.work_stream import Finished, WorkStream
from curriculum.worker import run_work_unit
from lopt.config import FrozenConfig
from lopt.estimators import validation_estimator
from lopt.types import Theta
from task_generator.task_config import TaskConfig

WAIT_SECONDS = 0.5


class AsynchronousLearner:
    """One run of a phase; `events` is the loop. See `meta_train_asynchronously` for the arguments."""

    def __init__(
        self,
        phase: Phase,
        tasks: Sequence[TaskConfig],
        optimizer: FrozenConfig,
        state: LearnerState,
        stream: WorkStream,
        *,
        seed: int,
        task_seconds: Sequence[float] | None,
        read_control: ReadControl,
        sample_task: Callable[[int], TaskConfig] | None,
        clock: Callable[[], float],
        run: str,
    ) -> None:
        self.original, self.phase, self.tasks, self.optimizer = phase, phase, list(tasks), optimizer
        self.state, self.stream = state, stream
        self.read_control, self.clock = read_control, clock
        self.assignment = Assignment(len(tasks), max_tries=phase.max_tries)
        self.batch = GradientBatch(state.theta)
        self.sent = InFlight()
        self.validations = RunningValidations(len(tasks), phase.max_tries)
        self.work_plan = None if task_seconds is None else WorkPlan(tasks, task_seconds)
        self.changes: dict[str, Any] = {}
        self.num_restarted = self.num_failed = 0
        self.outer_step = int(state.outer_step)
        self.resampler = Resampler(
            sample_task,
            phase.resample_probability,
            seed=seed,
            num_tasks=len(tasks),
            began_at=self.outer_step,
        )
        self._tag, self._is_ending = 0, False
        self.crew = Crew()
        self.transport = transport_of(phase, state.theta)
        self.writer = UnitWriter(
            phase, tasks, optimizer, self.transport.name, seed=seed, began_at=self.outer_step, run=run
        )
        self._measured_on = frozenset(range(len(tasks)))
        self.lookout = Lookout(stream, self.crew, clock)
        self._checked_at = clock()
        self._theta = _as_numpy(state.theta)
        self._trace = GradientTrace()

    def events(self) -> Iterator[LearnerEvent]:
        """Yields what happens, to the end of the phase."""
        # Of the start, or of a step whose validation may have been lost with the run before.
        if self.phase.is_validated_at(self.outer_step):
            self._validate()
        if self.outer_step == 0 and np.isinf(float(self.state.best_validation)):
            yield CheckpointDue(0, self.state)
        while self.outer_step < self.phase.outer_steps:
            control = self.read_control()
            if control.command == "stop":
                yield from self._finish_validations()
                yield CheckpointDue(self.outer_step, self.state)
                return
            if control.command == "pause":
                yield Paused(self.outer_step, self.state)
                continue
            if control.changes != self.changes:
                self.changes, self.phase = control.changes, controlled(self.original, control)
                yield Controlled(self.outer_step, self.state, self.changes)
            yield from self._round(may_start=True)
        yield from self._finish_validations()
        yield CheckpointDue(self.outer_step, self.state)

    def _finish_validations(self) -> Iterator[LearnerEvent]:
        self._is_ending = True
        while self.validations:
            yield from self._round(may_start=False)

    def _round(self, *, may_start: bool) -> Iterator[LearnerEvent]:
        """Gives work to whoever has room, and takes in what has finished."""
        self._look_around()
        while (worker := self.crew.next_with_room()) is not None and self._start_on(worker, may_start):
            self.crew.started(worker)
        for finished in self.stream.wait(WAIT_SECONDS):
            yield from self._take(finished)
        yield from self._give_up_late_ones()

    def _look_around(self) -> None:
        if gone := self.lookout.gone(self.outer_step):
            self.assignment.forget(list(gone))
            self.writer.gone(gone)

    def _start_on(self, worker: str, may_start: bool) -> bool:
        """Starts a unit on the worker, of a validation if one waits; returns whether there was one to start."""
        waiting = self.validations.next_unit()
        if waiting is not None:
            self._send_validation(worker, *waiting)
            return True
        if may_start:
            self._send(worker)
        return may_start

    def _send(self, worker: str) -> None:
        """Sends units of as many tasks as one message may have, and no more than the worker's share of a batch."""
        share = max(1, self._batch_size // len(self.crew))
        tasks = self.assignment.next_group(worker, min(self.transport.units_per_message, share))
        self._tag += 1
        errand = self.writer.errand(worker, tasks, self._tag, self.outer_step)
        self.stream.start(worker, run_errand, (errand, self._theta), tag=self._tag)
        self.sent.add(self._tag, Sent(worker, tasks, self.clock()))

    @property
    def _batch_size(self) -> int:
        return self.phase.batch_size or self.phase.num_static_configs

    def _validate(self) -> None:
        theta = _as_numpy(self.state.theta_average)
        self.validations.begin(self.outer_step, theta, self._validation_costs())

    def _validation_costs(self) -> Sequence[float] | None:
        """Returns what each task's unit of a validation is expected to take; None if nothing is known."""
        if self.work_plan is None:
            return None
        units = [self.writer.validation(task) for task in range(len(self.tasks))]
        return self.work_plan.costs(validation_estimator(self.phase.estimator), units)

    def _send_validation(self, worker: str, validation: RunningValidation, task: int) -> None:
        self._tag += 1
        payload = self.writer.validation(task), validation.theta
        self.stream.start(worker, run_work_unit, payload, tag=self._tag)
        self.sent.add(self._tag, Sent(worker, (task,), self.clock(), validation.outer_step))

    def _take(self, finished: Finished) -> Iterator[LearnerEvent]:
        """Takes in one message. Units that were given up are not known any more; what they came to still counts."""
        if finished.is_under_way:
            done = self.sent.under_way(finished.tag)
            if done is not None:
                self.crew.finished(done.worker)
            return
        known = self.sent.pop((finished.tag, *finished.others))
        for sent in known:
            if not sent.is_under_way:
                self.crew.finished(sent.worker)
        for sent in known:
            if finished.failure:
                yield from self._failed(
                    sent.tasks, finished.failure, sent.validation, counts=finished.had_begun
                )
            elif sent.validation is not None:
                self.batch.tally.spent(finished.result.cost)
                result = finished.result
                if self.work_plan is not None:
                    self.work_plan.take(sent.tasks[0], result)
                self.validations.take(
                    sent.validation, sent.tasks[0], result.meta_loss, result.num_inner_steps
                )
            else:
                self.writer.answered(sent.worker, sent.tasks)
        if known and isinstance(finished.result, Answer):
            yield from self._take_gradients(finished.result)
        yield from self._close_validations()

    def _take_gradients(self, answer: Answer) -> Iterator[LearnerEvent]:
        if self._is_ending or self.outer_step >= self.phase.outer_steps:
            return  # came in while the last theta was validated
        total = partial(self.transport.unpack, answer.packed, self.phase.estimator, self.state.theta)
        self.batch.add(answer.parts, total, self.outer_step - answer.outer_step, self.phase.max_staleness)
        for part in answer.parts:
            if part.failure:
                yield from self._failed((part.task,), part.failure)
            else:
                self.num_restarted += part.was_restarted
                self.assignment.succeeded(part.task)
                self._resample(part.task)
        if self.batch.count >= self._batch_size:
            yield from self._step()

    def _step(self) -> Iterator[LearnerEvent]:
        losses, tally = [loss for _, loss in self.batch.losses], self.batch.tally
        gradient, metrics, num_inner_steps = self.batch.take()
        self.state = apply_meta_gradient(self.phase, self.state, gradient)
        self.outer_step += 1
        self._theta = _as_numpy(self.state.theta)
        gradient_norm, cosine = self._trace.follow(gradient)
        telemetry = tally.telemetry(gradient_norm, cosine, self.tasks)
        metrics |= telemetry.metrics()
        metrics |= {
            "restarted_trajectories": float(self.num_restarted),
            "failed_units": float(self.num_failed),
            "resampled_tasks": float(self.resampler.count),
            "task_share_spread": float(np.ptp([self.assignment.returned[t] for t in self.assignment.active])),
        }
        yield OuterStepDone(
            outer_step=self.outer_step,
            state=self.state,
            meta_loss=float(np.mean(losses)),
            gradient_norm=gradient_norm,
            num_inner_steps=num_inner_steps,
            metrics=metrics,
            telemetry=telemetry,
        )
        last = self.outer_step == self.phase.outer_steps
        if self.phase.is_validated_at(self.outer_step):
            self._validate()
        if not last and self.outer_step % self.phase.checkpoint_every == 0:
            yield CheckpointDue(self.outer_step, self.state)

    def _close_validations(self) -> Iterator[LearnerEvent]:
        """Says which validations have ended; the theta of the best so far is kept.

        Only losses of the same tasks compare: without one that was left out, the best begins anew.
        """
        if not self.validations:
            return
        for done in self.validations.ended(self.sent.validations()):
            is_comparable = self._measured_on == (measured := frozenset(done.losses))
            is_best = not is_comparable or done.meta_loss < float(self.state.best_validation)
            if is_best and np.isfinite(done.meta_loss):
                self._measured_on = measured
                theta = jax.tree.map(jnp.asarray, done.theta)
                best = jnp.float32(done.meta_loss)
                self.state = self.state._replace(best_theta=theta, best_validation=best)
            yield Validated(done.outer_step, self.state, done.meta_loss, done.per_task, sum(done.inner_steps))

    def _failed(
        self, tasks: Sequence[int], reason: str, validation: int | None = None, *, counts: bool = True
    ) -> Iterator[LearnerEvent]:
        """Gives units that failed to somebody else; `counts` says whether it may be their task's fault.

        Of several units in one message it is not known whose fault it was: they are sent one by one from then on.
        """
        if counts and len(tasks) > 1:
            self.assignment.suspect(tasks)
            counts = False
        for task in tasks:
            self.num_failed += 1
            is_other = validation is not None and self.writer.is_replaced(task)
            if counts and not is_other and self.assignment.failed(task, reason):
                yield from self._leave_out(task, reason)
            if validation is None:
                self.assignment.give_back(task)
            else:
                self.validations.failed(validation, task, counts=counts)

    def _leave_out(self, task: int, reason: str) -> Iterator[LearnerEvent]:
        if not self.writer.is_replaced(task):
            self.validations.leave_out(task)
        reasons = tuple(self.assignment.reasons(task))
        yield TaskLeftOut(self.outer_step, self.state, self.tasks[task].label, reasons)
        if not self.assignment.active:
            raise AllTasksFailedError(
                f"all {len(self.tasks)} tasks of phase {self.phase.name!r} failed {self.phase.max_tries} times in "
                f"a row; the last: {reason}. The same command goes on from the last checkpoint; a larger "
                "`max_tries` of the phase, or fewer workers where memory is short, lets more pass"
            )

    def _give_up_late_ones(self) -> Iterator[LearnerEvent]:
        now = self.clock()
        if now - self._checked_at < WAIT_SECONDS:
            return
        self._checked_at = now
        for tag, sent, had_begun in self.sent.pop_late(now, self.phase.unit_timeout):
            if not sent.is_under_way:
                self.crew.finished(sent.worker)
            self.stream.give_up(tag)
            reason = f"not done after {now - sent.started:.0f} s"
            yield from self._failed(sent.tasks, reason, sent.validation, counts=had_begun)
        yield from self._close_validations()

    def _resample(self, task: int) -> None:
        if (config := self.resampler.draw(self._tag, task)) is not None:
            self.tasks[task] = config
            self.writer.replaced(task, config)
            self.assignment.replaced(task)


def _as_numpy(theta: Theta) -> Theta:
    return jax.tree.map(np.asarray, theta)
