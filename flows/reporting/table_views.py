"""The tables of an evaluation as text: optimizers, families of tasks, horizons. Each says what its n is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curriculum.evaluation.comparison import MAX_COST, MAX_SPEEDUP, QUANTILES, Row, quantile_name
from curriculum.evaluation.head_to_head import HeadToHeadRow
from curriculum.evaluation.normalized_loss import LossRow
from flows.reporting.data import EvaluationReport, TaskReport
from flows.reporting.evaluation_rows import clock_name
from flows.reporting.formatting import DASH, NO_BETTER, count_text, percent_text, plural, times_text
from flows.reporting.statistics import aggregate_speedup, headline_tasks

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
    "share of tasks ≥ 2× the normaliser",
    "tasks at the cap",
    f"tasks {NO_BETTER}",
    "diverged runs",
)
"""After the name: the last of the quantiles is the best quarter's threshold."""
_FAMILIAR = {True: "yes", False: "no", None: DASH}


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
    views += [
        _head_to_head(evaluation),
        _twice_as_fast(evaluation),
        _losses(evaluation),
        _families(evaluation),
    ]
    return [view for view in views if view.rows]


def mean_tiles(evaluation: EvaluationReport) -> list[tuple[str, str, str]]:
    """Returns the candidate's interquartile mean in steps, and by the clock where that was measured: what it is,
    the value, and its two intervals with their n."""
    label = evaluation.candidate.label
    rows = {row.name: row for table in evaluation.tables for row in table.rows}
    tiles = []
    for what, name in (("Interquartile mean", label), ("The same by the clock", clock_name(label))):
        if (row := rows.get(name)) is None:
            continue
        _, _, mean, over_seeds, over_tasks, *_ = _cells(name, row)
        remark = f"95 %: {over_seeds} with other seeds, {over_tasks} with other tasks ({_n(row)})"
        tiles.append((what, mean, remark))
    return tiles


def tables_lead(evaluation: EvaluationReport) -> str:
    """Returns what is the same in all tables of speed-ups: over whom, how far one can see, how to read them."""
    label, cap = evaluation.baselines[0].label, times_text(evaluation.max_speedup)
    clips = f"costs above {MAX_COST:g}"
    if evaluation.max_speedup > MAX_SPEEDUP:
        clips = f"values above {MAX_SPEEDUP:g}× (mean) and {clips}"
    return (
        f"Speed-ups in steps over the normaliser, {label}: 1× is as fast. It ran {cap} as long, so no larger one "
        'can be seen: "≥" stands before what rests on a task at that cap, "≤" before such a cost. Mean cost is the '
        f"mean of 1 / speed-up; {clips} are clipped per task, as in VeLO's tables. Columns in per cent are "
        "quantiles over tasks. Many rows are compared here: of twenty equal optimizers the best would still look "
        "better than the rest, so look at the intervals."
    )


def _cells(name: str, row: Row) -> tuple[str, ...]:
    def times(value: float, statistic: str) -> str:
        return f"{'≥ ' if statistic in row.bounds else ''}{_times(value)}"

    def interval(ends: tuple[float, float] | None, statistic: str) -> str:
        if ends is None:
            return DASH
        low, high = times(ends[0], f"{statistic} low"), times(ends[1], f"{statistic} high")
        return f"{low.removesuffix('×')} to {high}"

    quantiles = zip(row.quantiles, QUANTILES, strict=True)
    return (
        name,
        count_text(row.num_trials),
        times(row.iqm, "iqm"),
        interval(row.iqm_over_seeds, "iqm_over_seeds"),
        interval(row.iqm_over_tasks, "iqm_over_tasks"),
        times(row.mean_speedup, "mean_speedup"),
        f"{'≤ ' if 'mean_cost' in row.bounds else ''}{row.mean_cost:.2f}",
        *(times(value, quantile_name(quantile)) for value, quantile in quantiles),
        f"{'≥ ' if 'share_twice' in row.bounds else ''}{percent_text(row.share_twice)}",
        f"{row.num_capped} of {row.num_tasks}",
        f"{row.num_no_better} of {row.num_tasks}",
        f"{row.num_diverged} of {row.num_tasks * row.num_seeds}",
    )


def _times(value: float) -> str:
    return f"{value:.2f}×" if value < 10.0 else f"{value:.1f}×"


def _count(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    return f"n = {_n(rows[0])} in every row."


def _n(row: Row | LossRow | HeadToHeadRow) -> str:
    return f"{plural(row.num_tasks, 'task')} × {plural(row.num_seeds, 'seed')}"


def _head_to_head(evaluation: EvaluationReport) -> TableView:
    """The strongest opponent first."""
    rows, label = evaluation.head_to_head, evaluation.candidate.label
    note = (
        f"How often {label} ends lower than each of the others, on the same task with the same seed: the "
        "probability of improvement (Agarwal et al. 2021), a mean over tasks, a tie counting half. It knows no "
        "normaliser and no cap, and does not say by how much. Won and lost are tasks, by the mean loss over seeds. "
    )
    return TableView(
        title="Head to head",
        note=note + (f"n = {_n(rows[0])} in every row." if rows else ""),
        head=("against", COLUMNS[0], "ends lower", "95 %, other seeds", "95 %, other tasks", "won", "lost"),
        rows=tuple(
            (
                row.name,
                count_text(row.num_trials),
                percent_text(row.probability),
                _percent_interval(row.over_seeds),
                _percent_interval(row.over_tasks),
                str(row.num_won),
                str(row.num_lost),
            )
            for row in rows
        ),
    )


def _percent_interval(ends: tuple[float, float] | None) -> str:
    return DASH if ends is None else " to ".join(f"{100 * end:.0f}" for end in ends) + "\u202f%"


def _twice_as_fast(evaluation: EvaluationReport) -> TableView:
    rows, steps = evaluation.twice_as_fast, count_text(2 * evaluation.horizon)
    return TableView(
        title="At least twice as fast",
        note=(
            "Tasks on which the mean loss over seeds ended lower than that of every one of 35 AdamW settings, five "
            f"rates with seven schedules, after {steps} steps, which they were told of (LHOPT, Almeida et al. "
            f"2021, 4.1). {plural(evaluation.num_seeds, 'seed')}."
        ),
        head=("optimizer", "tasks", "share"),
        rows=tuple(
            (row.name, f"{row.num_twice} of {row.num_tasks}", percent_text(row.num_twice / row.num_tasks))
            for row in rows
        ),
        emphasis=tuple(n for n, row in enumerate(rows) if row.name == evaluation.candidate.label),
    )


def _losses(evaluation: EvaluationReport) -> TableView:
    rows = evaluation.losses
    note = (
        f"0 is the normaliser's own loss after {count_text(evaluation.horizon)} steps, 1 is where training began, "
        "−1 the least that counts (after Metz et al. 2020, App. E; docs/evaluation.md says what differs). Trials "
        'are chosen by training loss; "global" is one setting for all tasks. '
    )
    if rows:
        note += f"n = {_n(rows[0])} in every row."
    return TableView(
        title="Normalised final losses",
        note=note,
        head=("optimizer", "trainings per task", "training mean", "median", "test mean", "median"),
        rows=tuple(
            (
                row.name,
                count_text(row.num_trials),
                *(
                    f"{value:.3f}"
                    for value in (
                        row.train_mean,
                        row.train_median,
                        row.test_mean,
                        row.test_median,
                    )
                ),
            )
            for row in rows
        ),
        emphasis=tuple(n for n, row in enumerate(rows) if row.name == evaluation.candidate.label),
    )


def _families(evaluation: EvaluationReport) -> TableView:
    """Wins, losses and the median speed-up by family, the worst first; then of those drawn in training, or not."""
    baseline = next(iter(evaluation.baselines), None)
    by_family: dict[str, list[TaskReport]] = {}
    for task in headline_tasks(evaluation):
        by_family.setdefault(task.family, []).append(task)
    found = [(f, tasks, _wins(evaluation, tasks)) for f, tasks in by_family.items() if f]
    rows = sorted((wins[0], f, _FAMILIAR[tasks[0].familiar], wins[1]) for f, tasks, wins in found if wins)
    label = baseline.label if baseline is not None else "the normaliser"
    return TableView(
        title="By family of tasks",
        note=f"Against {label}, by the mean loss of {plural(evaluation.num_seeds, 'seed')}; the worst first. "
        "Drawn in training: whether a phase could draw tasks of the family, if not these ones.",
        head=("family", "drawn in training", "n tasks", "won", "lost", "median speed-up"),
        rows=(*((f, familiar, *cells) for _, f, familiar, cells in rows), *_by_familiarity(evaluation)),
    )


def _by_familiarity(evaluation: EvaluationReport) -> list[tuple[str, ...]]:
    """Returns the totals of the families that training drew and of those it did not, where there are both."""
    tasks = headline_tasks(evaluation)
    if not {True, False} <= {task.familiar for task in tasks}:
        return []
    groups = [(each, [task for task in tasks if task.familiar is each]) for each in (True, False)]
    return [
        (f"all that are {'' if each else 'not '}drawn", _FAMILIAR[each], *wins[1])
        for each, group in groups
        if (wins := _wins(evaluation, group))
    ]


def _wins(evaluation: EvaluationReport, tasks: Sequence[TaskReport]) -> tuple[float, tuple[str, ...]] | None:
    """Returns the candidate's median speed-up on the tasks, and the cells of the columns from "n tasks" on."""
    baseline = next(iter(evaluation.baselines), None)
    if baseline is None:
        return None
    total = aggregate_speedup(evaluation, tasks, evaluation.candidate.name, baseline.name)
    if total is None:
        return None
    return total.median, (str(total.num_tasks), str(total.num_wins), str(total.num_losses), total.text)
