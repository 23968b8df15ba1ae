"""From `ReportData` to the rows and sentences that the page and the terminal show: text, no markup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flows.reporting.data import (
    EvaluationReport,
    OptimizerCurve,
    OptimizerInfo,
    PhaseReport,
    ReportData,
    TaskReport,
    TunedSetting,
)
from flows.reporting.evaluation_plots import compared_baselines
from flows.reporting.formatting import (
    DASH,
    NO_BETTER,
    count_text,
    loss_text,
    plural,
    seconds_text,
    times_text,
)
from flows.reporting.statistics import (
    AggregateSpeedup,
    SpeedupSummary,
    Verdict,
    aggregate_speedup,
    finite_mean,
    headline_tasks,
    task_speedup,
)

MAX_WORST = 5


@dataclass(frozen=True)
class SpeedupCell:
    """The speed-up over one baseline on one task; its marks, and its seeds', are on a logarithmic strip (0–100)."""

    baseline: str
    text: str
    spread: str
    verdict: Verdict | None
    wall_clock: str
    marks: tuple[float, ...] = ()
    middle: float = 50.0


@dataclass(frozen=True)
class OptimizerCell:
    """One optimizer's final loss on one task."""

    label: str
    loss: str
    spread: str
    diverged: str
    cost: str
    tuned: str


@dataclass(frozen=True)
class TaskRow:
    """One task, ready to be shown."""

    name: str
    label: str
    why: str
    verdict: Verdict | None
    speedups: tuple[SpeedupCell, ...]
    optimizers: tuple[OptimizerCell, ...]


@dataclass(frozen=True)
class TaskGroup:
    """Tasks that share a heading, best first, and what they amount to over each baseline."""

    title: str
    rows: tuple[TaskRow, ...]
    totals: tuple[tuple[str, str], ...]

    def with_verdict(self, *verdicts: str) -> tuple[TaskRow, ...]:
        """Returns the rows that ended that way against the first baseline."""
        return tuple(row for row in self.rows if row.verdict in verdicts)


def headline_totals(data: ReportData) -> tuple[tuple[OptimizerInfo, AggregateSpeedup], ...]:
    """Returns the candidate's speed-up over each baseline, over the tasks the headline speaks of."""
    evaluation = data.evaluation
    if evaluation is None:
        return ()
    tasks, candidate = headline_tasks(evaluation), evaluation.candidate.name
    found = (
        (info, aggregate_speedup(evaluation, tasks, candidate, info.name)) for info in evaluation.baselines
    )
    return tuple((info, total) for info, total in found if total is not None)


def headline_parts(data: ReportData) -> tuple[str, str]:
    """Returns the result in a few words, and what it is a median of."""
    totals = headline_totals(data)
    if data.evaluation is None or not totals:
        return "Nothing has been evaluated yet", "Run `keirin evaluate`"
    info, total = totals[0]
    candidate = data.evaluation.candidate.label
    if total.median > 0.0:
        result = f"{info.label} needs {_in_words(total)} as many steps as {candidate}"
    else:
        result = f"{candidate} {total.text.replace(NO_BETTER, f'was {NO_BETTER}')} on most tasks"
    held_out = "held-out " if all(task.held_out for task in headline_tasks(data.evaluation)) else ""
    count = f"{plural(total.num_tasks, f'{held_out}task')}, {plural(total.num_seeds, 'seed')} each"
    detail = f"Median of {count}; won {total.num_wins}, lost {total.num_losses}"
    for other, total in totals[1:]:
        detail += f". Over {other.label}: {_in_words(total)}, won {total.num_wins}, lost {total.num_losses}"
    return result[0].upper() + result[1:], detail


def _in_words(total: AggregateSpeedup) -> str:
    return total.text.replace("≥", "at least")


def headline(data: ReportData) -> str:
    """The result in a line, with its n."""
    return ". ".join(headline_parts(data)) + "."


def task_groups(data: ReportData) -> tuple[TaskGroup, ...]:
    """Returns the evaluated tasks, held-out ones first, each group sorted by speed-up."""
    evaluation = data.evaluation
    if evaluation is None:
        return ()
    groups = []
    for held_out, title in (
        (True, "Held-out tasks"),
        (None, "Tasks not known to be held out"),
        (False, "Tasks of its own distribution"),
    ):
        tasks = [task for task in evaluation.tasks if task.held_out is held_out]
        if tasks:
            rows = [_task_row(evaluation, task) for task in _best_first(evaluation, tasks)]
            groups.append(TaskGroup(title, tuple(rows), _totals(evaluation, tasks)))
    return tuple(groups)


def worst_rows(data: ReportData) -> tuple[TaskRow, ...]:
    """Returns the tasks of the headline with the smallest speed-ups, worst first: five, or half of fewer."""
    evaluation = data.evaluation
    if evaluation is None or not compared_baselines(evaluation):
        return ()
    tasks = headline_tasks(evaluation)
    worst = _best_first(evaluation, tasks)[::-1][: min(MAX_WORST, len(tasks) // 2)]
    return tuple(_task_row(evaluation, task) for task in worst)


def task_rows(data: ReportData) -> list[dict[str, str]]:
    """Returns one flat row of text per task: for table artifacts and spreadsheets."""
    table = []
    for group in task_groups(data):
        for row in group.rows:
            entry = {"task": row.name, "group": group.title, "result": row.verdict or DASH}
            for cell in row.speedups:
                entry[f"speed-up over {cell.baseline}"] = f"{cell.text} {cell.spread}".strip()
            for optimizer in row.optimizers:
                lost = f" ({optimizer.diverged})" if optimizer.diverged else ""
                entry[f"final loss, {optimizer.label}"] = f"{optimizer.loss}{lost}"
            table.append(entry)
    return table


def phase_sentence(phase: PhaseReport) -> str:
    """Says what a phase's meta-loss did, first against last tenth, and how validation compares."""
    tenth = max(1, len(phase.meta_loss) // 10)
    first, last = finite_mean(phase.meta_loss[:tenth]), finite_mean(phase.meta_loss[-tenth:])
    parts = []
    if first is not None and last is not None:
        moved = "fell" if last < first else "did not fall"
        parts.append(
            f"On sampled tasks the meta-loss {moved}: {loss_text(first)} to {loss_text(last)} "
            f"(means of the first and last {plural(tenth, 'outer step')}, {phase.num_tasks} tasks each)."
        )
    if phase.validation:
        point = phase.validation[-1]
        word = "below" if point.meta_loss < point.initial_meta_loss else "not below"
        parts.append(
            f"On {plural(point.num_tasks, 'validation task')}: {loss_text(point.meta_loss)} at step "
            f"{point.outer_step}, {word} the initialisation's {loss_text(point.initial_meta_loss)}."
        )
    unfinished = sum(not math.isfinite(value) for value in phase.meta_loss)
    if unfinished or phase.num_skipped:
        parts.append(
            f"Not finite: {plural(unfinished, 'outer step')}; skipped: {plural(phase.num_skipped, 'update')}."
        )
    return " ".join(parts) or "No outer step yet."


def phase_facts(phase: PhaseReport) -> tuple[tuple[str, str], ...]:
    """Pairs (what, value) under a phase's plot."""
    rate = phase.inner_steps / phase.seconds if phase.seconds else 0.0
    low, high = phase.horizon
    return (
        ("horizon", f"{count_text(low)}–{count_text(high)} steps"),
        ("per outer step", f"{phase.num_tasks} tasks × {plural(phase.num_pairs, 'pair')}"),
        ("outer steps", count_text(len(phase.outer_step))),
        ("inner steps", count_text(phase.inner_steps)),
        ("time", seconds_text(phase.seconds)),
        ("speed", f"{count_text(round(rate))} inner steps/s" if rate else DASH),
    )


def _best_first(evaluation: EvaluationReport, tasks: Sequence[TaskReport]) -> list[TaskReport]:
    baselines = compared_baselines(evaluation)
    if not baselines:
        return list(tasks)

    def speed(task: TaskReport) -> float:
        summary = task_speedup(evaluation, task, evaluation.candidate.name, baselines[0].name)
        return summary.value if summary else -1.0

    return sorted(tasks, key=speed, reverse=True)


def _totals(evaluation: EvaluationReport, tasks: Sequence[TaskReport]) -> tuple[tuple[str, str], ...]:
    totals = []
    for info in compared_baselines(evaluation):
        total = aggregate_speedup(evaluation, tasks, evaluation.candidate.name, info.name)
        if total:
            text = (
                f"median {total.text}, worst {total.worst.text}, best {total.best.text}; "
                f"won {total.num_wins}, lost {total.num_losses} of {plural(total.num_tasks, 'task')}, "
                f"{plural(total.num_seeds, 'seed')} each"
            )
            totals.append((info.label, text))
    return tuple(totals)


def _task_row(evaluation: EvaluationReport, task: TaskReport) -> TaskRow:
    candidate = evaluation.candidate.name
    cells = []
    for info in compared_baselines(evaluation):
        summary = task_speedup(evaluation, task, candidate, info.name)
        found = task.speedup(candidate, info.name)
        cells.append(_speedup_cell(evaluation, task, info, summary, found.per_seed if found else ()))
    optimizers = [
        _optimizer_cell(
            info, curve, task.curve(evaluation.baselines[0].name) if evaluation.baselines else None
        )
        for info in evaluation.optimizers
        if (curve := task.curve(info.name)) is not None
    ]
    verdict = cells[0].verdict if cells else None
    return TaskRow(task.name, task.label, task.why, verdict, tuple(cells), tuple(optimizers))


def _speedup_cell(
    evaluation: EvaluationReport,
    task: TaskReport,
    info: OptimizerInfo,
    summary: SpeedupSummary | None,
    per_seed: Sequence[float],
) -> SpeedupCell:
    if summary is None:
        return SpeedupCell(info.label, DASH, "", None, DASH)
    cap = evaluation.max_speedup
    spread = ""
    if summary.num_seeds > 1 and summary.high > 0.0:
        low = times_text(summary.low).rstrip("×") if summary.low > 0.0 else "0"
        spread = f"{low} to {times_text(summary.high, at_least=summary.high >= cap)}"
    marks = tuple(_strip_position(value, cap) for value in per_seed)
    wall_clock = _wall_clock(task, evaluation.candidate.name, info.name, summary)
    middle = _strip_position(summary.value, cap)
    return SpeedupCell(info.label, summary.text, spread, summary.verdict, wall_clock, marks, middle)


def _strip_position(value: float, cap: float) -> float:
    # Symmetric about 1x, so that "twice as fast" and "half as fast" are equally far from the middle.
    reach = math.log(max(cap, 4.0))
    if not value > 0.0:
        return 0.0
    return round(min(100.0, max(0.0, 50.0 + 50.0 * math.log(value) / reach)), 1)


def _wall_clock(task: TaskReport, candidate: str, baseline: str, summary: SpeedupSummary) -> str:
    ours, theirs = task.curve(candidate), task.curve(baseline)
    costs = ours and theirs and ours.seconds_per_step and theirs.seconds_per_step
    if not (ours and theirs and costs and ours.seconds_per_step and theirs.seconds_per_step):
        return DASH
    if summary.value == 0.0:  # no number of seconds makes it more
        return DASH
    return times_text(
        summary.value * theirs.seconds_per_step / ours.seconds_per_step, at_least=summary.is_capped
    )


def _optimizer_cell(
    info: OptimizerInfo, curve: OptimizerCurve, reference: OptimizerCurve | None
) -> OptimizerCell:
    finite = [value for value in curve.final_losses if math.isfinite(value)]
    lost = len(curve.final_losses) - len(finite)
    loss = loss_text(finite_mean(finite)) if finite else "diverged" if lost else DASH
    spread = f"{loss_text(min(finite))}–{loss_text(max(finite))}" if len(finite) > 1 else ""
    diverged = f"{lost} of {len(curve.final_losses)} seeds diverged" if lost else ""
    cost = seconds_text(curve.seconds_per_step)
    if (
        reference is not None
        and reference is not curve
        and reference.seconds_per_step
        and curve.seconds_per_step
    ):
        cost += f" ({times_text(curve.seconds_per_step / reference.seconds_per_step)})"
    return OptimizerCell(info.label, loss, spread, diverged, cost, _tuned_text(curve.tuned))


def _tuned_text(tuned: TunedSetting | None) -> str:
    if tuned is None:
        return ""
    edge = ", at the edge of the grid" if tuned.is_at_edge else ""
    return f"{tuned.setting}, best of {tuned.num_tried}{edge}"
