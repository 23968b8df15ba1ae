"""The tables of an evaluation as text: optimizers, families of tasks, horizons. Each says what its n is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from curriculum.evaluation.comparison import Row
from flows.reporting.data import EvaluationReport, TaskReport
from flows.reporting.formatting import count_text, percent_text, plural, times_text
from flows.reporting.statistics import headline_tasks, task_speedup

COLUMNS = (
    "trainings per task",
    "interquartile mean",
    "95 %, other seeds",
    "95 %, other tasks",
    "mean",
    "mean cost",
    "5 %",
    "10 %",
    "25 %",
    "50 %",
    "75 %",
    "tasks ≥ 2×",
    "failed runs",
)
"""After the name: the last of the quantiles is the best quarter's threshold."""


@dataclass(frozen=True)
class TableView:
    """One table, ready to be shown. `emphasis` is the number of the row that it is about."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    emphasis: tuple[int, ...] = ()


def table_views(evaluation: EvaluationReport) -> list[TableView]:
    """Returns every table of an evaluation, those without rows left out."""
    views = [
        TableView(
            title=table.title,
            note=f"{table.note} {_count(table.rows)}",
            head=("optimizer", *COLUMNS),
            rows=tuple(_cells(row.name, row) for row in table.rows),
            emphasis=tuple(n for n, row in enumerate(table.rows) if row.name == evaluation.candidate.label),
        )
        for table in evaluation.tables
    ]
    if len(evaluation.horizons) > 1:
        rows = [each.row for each in evaluation.horizons]
        views.append(
            TableView(
                title="At several horizons",
                note=f"The same weights, told how long each training is. {_count(rows)}",
                head=("inner steps", *COLUMNS[1:]),
                rows=tuple((count_text(h.horizon), *_cells("", h.row)[2:]) for h in evaluation.horizons),
            )
        )
    views += [_losses(evaluation), _families(evaluation)]
    return [view for view in views if view.rows]


def _cells(name: str, row: Row) -> tuple[str, ...]:
    def interval(ends: tuple[float, float]) -> str:
        return f"{_times(ends[0])} to {_times(ends[1])}"

    return (
        name,
        count_text(row.num_trials),
        _times(row.iqm),
        interval(row.iqm_over_seeds),
        interval(row.iqm_over_tasks),
        _times(row.mean_speedup),
        f"{row.mean_cost:.2f}",
        *(_times(value) for value in row.quantiles),
        percent_text(row.share_twice),
        f"{row.num_diverged} of {row.num_tasks * row.num_seeds}",
    )


def _times(value: float) -> str:
    return f"{value:.2f}×" if value < 10.0 else f"{value:.1f}×"


def _count(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    return f"n = {plural(rows[0].num_tasks, 'task')} × {plural(rows[0].num_seeds, 'seed')} in every row."


def _losses(evaluation: EvaluationReport) -> TableView:
    rows = evaluation.losses
    note = (
        "0 is the best that the normaliser ever reached, 1 is where training began (Metz et al. 2020, App. E). "
        'Trials are chosen by training loss; "global" is one setting for all tasks. '
    )
    if rows:
        note += f"n = {plural(rows[0].num_tasks, 'task')} × {plural(rows[0].num_seeds, 'seed')} in every row."
    return TableView(
        title="Normalised final losses",
        note=note,
        head=("optimizer", "trainings per task", "training mean", "median", "other data mean", "median"),
        rows=tuple(
            (
                row.name,
                count_text(row.num_trials),
                *(
                    f"{value:.3f}"
                    for value in (
                        row.train_mean,
                        row.train_median,
                        row.held_out_data_mean,
                        row.held_out_data_median,
                    )
                ),
            )
            for row in rows
        ),
        emphasis=tuple(n for n, row in enumerate(rows) if row.name == evaluation.candidate.label),
    )


def _families(evaluation: EvaluationReport) -> TableView:
    """Wins, losses and the median speed-up by family; the worst family first."""
    baseline = next(iter(evaluation.baselines), None)
    by_family: dict[str, list[TaskReport]] = {}
    for task in headline_tasks(evaluation):
        by_family.setdefault(task.family, []).append(task)
    rows = []
    for family, tasks in by_family.items():
        found = [
            summary
            for task in tasks
            if baseline is not None
            and (summary := task_speedup(evaluation, task, evaluation.candidate.name, baseline.name))
        ]
        if family and found:
            wins = sum(summary.verdict == "win" for summary in found)
            losses = sum(summary.verdict in ("loss", "diverged") for summary in found)
            middle = median(summary.median for summary in found)
            rows.append((middle, (family, str(len(found)), str(wins), str(losses), times_text(middle))))
    label = baseline.label if baseline is not None else "the normaliser"
    return TableView(
        title="By family of tasks",
        note=f"Against {label}, by the median of {plural(evaluation.num_seeds, 'seed')}; the worst family first.",
        head=("family", "n tasks", "won", "lost", "median speed-up"),
        rows=tuple(cells for _, cells in sorted(rows)),
    )
