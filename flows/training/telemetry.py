"""Follows the events of a phase: every value into MLflow, in batches, and a live page of it all."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from curriculum.events import Controlled, LearnerEvent, OuterStepDone, Paused, TaskLeftOut, Validated
from curriculum.telemetry import StepTelemetry
from flows.reporting.live_data import LiveEvent, LiveReport, LiveTask, Recent, RunState
from flows.reporting.series import Series
from flows.session import Session
from flows.training.live_page import LivePage, live_page
from flows.training.plan import PhasePlan
from flows.training.progress import PhaseProgress
from storage.metric_writer import MetricWriter
from storage.tracking import Run

RATE_SECONDS = 30.0
RECENT_STEPS = 200


class InnerRate:
    """Inner steps per second, over the latest half minute."""

    def __init__(self, seconds: float, inner_steps: float) -> None:
        self._seen = deque([(seconds, inner_steps)])

    def at(self, seconds: float, inner_steps: float) -> float:
        """Takes in how many there were at that time; returns the rate, NaN while no time has passed."""
        self._seen.append((seconds, inner_steps))
        while len(self._seen) > 2 and seconds - self._seen[1][0] >= RATE_SECONDS:
            self._seen.popleft()
        passed = seconds - self._seen[0][0]
        return (inner_steps - self._seen[0][1]) / passed if passed > 0 else float("nan")


class PhaseTelemetry:
    """One run of a phase, as people follow it.

    Args:
      plan: What runs.
      progress: Where it begins.
      session: Where things are, and who is told.
      run: Its record in MLflow.
    """

    def __init__(self, plan: PhasePlan, progress: PhaseProgress, session: Session, run: Run) -> None:
        self._plan, self._progress, self._run, self._session = plan, progress, run, session
        self._writer = MetricWriter(run)
        self._page = LivePage(live_page(session.workspace, plan.run_name), session.reporter.line)
        self._steps: deque[StepTelemetry] = deque(maxlen=RECENT_STEPS)
        self._began = progress.seconds, int(progress.state.outer_step)
        self._inner_steps = progress.history.inner_steps
        self._rate = InnerRate(progress.seconds, self._inner_steps)
        self._max_staleness = plan.phase.max_staleness
        self.report = self._first_report()
        self._page.write(self.report)
        session.reporter.line(f"live page: {self._page.path.as_uri()}", whole=True)

    def take(self, event: LearnerEvent) -> None:
        """Takes in an event that `progress` has taken in."""
        self.report.state = "paused" if isinstance(event, Paused) else "running"
        match event:
            case OuterStepDone():
                self._take_step(event)
            case Validated():
                self._record({"validation_loss": event.meta_loss}, event.outer_step)
            case Controlled():
                self._max_staleness = event.changes.get("max_staleness", self._plan.phase.max_staleness)
                self._writer.add(
                    {f"control_{name}": float(value) for name, value in event.changes.items()},
                    event.outer_step,
                )
                self._say(event.outer_step, f"changed by hand: {listed(event.changes)}")
            case TaskLeftOut():
                self._say(event.outer_step, f"left out: {event.task} ({event.reasons[-1]})", style="yellow")
        if self._page.is_due:
            self._write_page()

    def flush(self) -> None:
        """Returns when MLflow has every value: what a checkpoint covers is recorded before it is stored."""
        self._writer.flush()

    def close(self, state: RunState, note: str = "") -> None:
        """Records what is left, and leaves the page as it is at the end."""
        self.report.state, self.report.note = state, note
        self._write_page()
        self._writer.close()

    def _take_step(self, event: OuterStepDone) -> None:
        step, told, progress = event.outer_step, event.telemetry, self._progress
        self._steps.append(told)
        self._inner_steps += event.num_inner_steps
        self._record(
            {
                "meta_loss": event.meta_loss,
                "gradient_norm": event.gradient_norm,
                "inner_steps_per_second": self._rate.at(progress.seconds, self._inner_steps),
            },
            step,
        )
        metrics = event.metrics | {"inner_steps": self._inner_steps, "seconds": progress.seconds}
        metrics |= {f"staleness/{name}": float(count) for name, count in buckets(told.staleness).items()}
        metrics |= {f"tasks/{task.number:03d}": task.meta_loss for task in told.tasks}
        self._writer.add(metrics, step)
        for name in (
            "gradient_variance",
            "gradient_noise_share",
            "gradient_cosine",
            "compile_share",
            "drop_rate",
        ):
            self._curve(name).add(step, event.metrics.get(name, float("nan")))
        for family, loss in told.families.items():
            self.report.families.setdefault(family, Series()).add(step, loss)
        for task in told.tasks:
            shown = LiveTask(label=task.label, family=task.family)
            self.report.tasks.setdefault(f"{task.number:03d} {task.label}", shown).curve.add(
                step, task.meta_loss
            )

    def _record(self, metrics: Mapping[str, float], step: int) -> None:
        """Records values in MLflow and on curves of the page."""
        self._writer.add(metrics, step)
        for name, value in metrics.items():
            self._curve(name).add(step, value)

    def _curve(self, name: str) -> Series:
        return self.report.curves.setdefault(name, Series())

    def _say(self, outer_step: int, what: str, *, style: str = "") -> None:
        """Says an event on the terminal and on the page, and records it with the run."""
        text = f"[{style}]{what}[/{style}]" if style else what
        self._session.reporter.line(f"outer step {outer_step}: {text}")
        self._run.set_tags({f"keirin.event.{outer_step}": what})
        self._add_event(outer_step, what)

    def _add_event(self, outer_step: int, what: str) -> None:
        self.report.events.append(LiveEvent(outer_step=outer_step, when=_now(), what=what))

    def _write_page(self) -> None:
        report, progress = self.report, self._progress
        report.outer_step = int(progress.state.outer_step)
        report.seconds, report.inner_steps = progress.seconds, self._inner_steps
        report.written = _now()
        report.seconds_left = self._seconds_left()
        report.recent = recent(self._steps, self._max_staleness if report.mode == "asynchronous" else None)
        self._page.write(report)

    def _seconds_left(self) -> float | None:
        seconds, step = self._began
        done = self.report.outer_step - step
        if self.report.state != "running" or not done:
            return None
        return (self._progress.seconds - seconds) / done * (self.report.outer_steps - self.report.outer_step)

    def _first_report(self) -> LiveReport:
        """Returns the report of an earlier part of the run as it was at this outer step, or a new one."""
        phase, done = self._plan.phase, self._began[1]
        report = LiveReport(
            run_name=self._plan.run_name,
            phase=phase.name,
            summary=phase.summary,
            mode=phase.mode,
            outer_step=done,
            outer_steps=phase.outer_steps,
            state="running",
            seconds=self._progress.seconds,
            inner_steps=self._inner_steps,
            written=_now(),
            mlflow_run=self._run.run_id,
        )
        before = self._page.read() if done else None
        if before is not None:
            report.curves, report.families, report.tasks = before.curves, before.families, before.tasks
            report.events = [event for event in before.events if event.outer_step <= done]
            tasks = [task.curve for task in report.tasks.values()]
            for curve in (*report.curves.values(), *report.families.values(), *tasks):
                curve.forget_after(done)
        elif done:
            report.curves = _curves_of(self._progress.history.columns)
        if done:
            report.events.append(LiveEvent(outer_step=done, when=_now(), what="continued from a checkpoint"))
        return report


def listed(changes: Mapping[str, Any]) -> str:
    """Returns changed numbers as text."""
    return ", ".join(f"{name} {value:g}" for name, value in changes.items())


def buckets(staleness: Mapping[int, int]) -> dict[str, int]:
    """Returns the histogram in a few buckets, however old units get: 0, 1, 2, 3-4, 5-8, 9-16, …"""
    counts: Counter[str] = Counter()
    for age, count in staleness.items():
        high = 1 << max(age - 1, 0).bit_length() if age > 1 else age
        low = high // 2 + 1
        counts[f"{low}-{high}" if age > 2 else str(age)] += count
    return dict(counts)


def recent(steps: deque[StepTelemetry], max_staleness: int | None) -> Recent:
    """Returns the sums over those outer steps."""
    staleness: Counter[int] = Counter()
    for step in steps:
        staleness.update(step.staleness)
    return Recent(
        outer_steps=len(steps),
        staleness=dict(sorted(staleness.items())),
        max_staleness=max_staleness,
        num_units=sum(step.num_units for step in steps),
        num_stale=sum(step.num_stale for step in steps),
        num_not_finite=sum(step.num_not_finite for step in steps),
        compile_seconds=sum(step.cost.compile_seconds for step in steps),
        run_seconds=sum(step.cost.run_seconds for step in steps),
    )


def _curves_of(columns: Mapping[str, list[float]]) -> dict[str, Series]:
    steps = columns["outer_step"]
    return {
        "meta_loss": Series.of(steps, columns["meta_loss"]),
        "gradient_norm": Series.of(steps, columns["gradient_norm"]),
        "validation_loss": Series.of(columns["validated_at"], columns["validation_loss"]),
    }


def _now() -> datetime:
    return datetime.fromtimestamp(time.time()).astimezone()
