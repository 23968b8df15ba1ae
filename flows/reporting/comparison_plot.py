"""The picture of the tables: every optimizer's interquartile mean with its two intervals, the best on top."""

from __future__ import annotations

from matplotlib.axes import Axes

from curriculum.evaluation.comparison import Row
from flows.reporting.data import EvaluationReport, ReportData
from flows.reporting.evaluation_rows import ComparisonTable, untrained_name
from flows.reporting.formatting import plural
from flows.reporting.interval_rows import draw_intervals, draw_value, name_rows
from flows.reporting.themes import LIGHT, Theme, add_heading, log_axis, new_figure, to_png

_FLOOR = 0.02
"""The least that the logarithmic axis begins at. What is below its beginning is drawn there."""


def compared_tables(evaluation: EvaluationReport) -> tuple[ComparisonTable, ...]:
    """Returns the tables worth a picture: those that have a baseline to compare the candidate with."""
    ours = _ours(evaluation)
    return tuple(
        table
        for table in evaluation.tables
        if any(not row.name.startswith(ours) for row in table.rows)
        and any(row.name in ours for row in table.rows)
    )


def draw_comparison(
    axes: Axes,
    evaluation: EvaluationReport,
    table: ComparisonTable,
    theme: Theme,
    *,
    num_places: int | None = None,
) -> None:
    """Draws a table: a dot is the interquartile mean over tasks, the bar its 95 % interval over seeds, the line
    the one over tasks. A triangle that points to the right means "at least", one to the left
    that the mean is below the scale, as 0 is.

    Args:
      axes: To draw on.
      evaluation: Whose tables share one scale.
      table: One of `compared_tables`.
      theme: Its colours.
      num_places: Rows to leave room for, so that the panels of one figure have equal rows; none: its own.
    """
    ours, (low, high) = _ours(evaluation), _limits(evaluation)
    rows = sorted(table.rows, key=lambda row: row.iqm)
    colours = (theme.series[0], theme.series[3], theme.muted)
    for place, row in enumerate(rows):
        colour = colours[ours.index(row.name) if row.name in ours else -1]
        _draw_row(axes, place, row, colour, theme, low)
    axes.set_xscale("log")
    log_axis(axes.xaxis, low, high, lambda value: f"{value:g}×")
    axes.set_xlim(low, high)
    name_rows(axes, [row.name for row in rows], theme, num_places=num_places)
    axes.axvline(1.0, color=theme.ink, linewidth=1.0)
    count = f"{plural(rows[0].num_tasks, 'task')} × {plural(rows[0].num_seeds, 'seed')}"
    axes.set_xlabel(f"speed-up over {evaluation.baselines[0].label} ({count})")
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        if row.name == ours[0]:
            label.set_color(theme.series[0])
            label.set_fontweight("bold")


def comparison_height(num_rows: int) -> float:
    """Returns the height in inches of a picture with that many rows."""
    return max(2.4, 0.7 + 0.2 * num_rows)


def _limits(evaluation: EvaluationReport) -> tuple[float, float]:
    rows = [row for table in compared_tables(evaluation) for row in table.rows]
    ends = [
        end for row in rows for end in (row.iqm, *(row.iqm_over_seeds or ()), *(row.iqm_over_tasks or ()))
    ]
    return max(_FLOOR, min([0.8, *(end for end in ends if end > 0.0)])) / 1.25, max([1.25, *ends]) * 1.25


def _draw_row(axes: Axes, place: int, row: Row, colour: str, theme: Theme, low: float) -> None:
    over_tasks, over_seeds = (
        ends and (max(ends[0], low), max(ends[1], low)) for ends in (row.iqm_over_tasks, row.iqm_over_seeds)
    )
    draw_intervals(axes, place, over_tasks, over_seeds, colour)
    for ends, statistic in ((over_tasks, "iqm_over_tasks"), (over_seeds, "iqm_over_seeds")):
        if ends is not None and f"{statistic} high" in row.bounds:
            axes.plot(ends[1], place, ">", color=colour, markersize=4.0)
    marker = "<" if row.iqm < low else ">" if "iqm" in row.bounds else "o"
    draw_value(axes, place, max(row.iqm, low), marker, colour, theme)


def _ours(evaluation: EvaluationReport) -> tuple[str, str]:
    label = evaluation.candidate.label
    return label, untrained_name(label)


def comparison_png(data: ReportData) -> bytes:
    """Returns every optimizer's interquartile mean as PNG bytes, one panel per table.

    Raises:
      ValueError: If `data` has no evaluation, or one without a table that has baselines.
    """
    evaluation = data.evaluation
    tables = compared_tables(evaluation) if evaluation is not None else ()
    if evaluation is None or not tables:
        raise ValueError("`data` has no baselines in a table: run `keirin evaluate` first.")
    num_places = max(len(table.rows) for table in tables)
    size = (5.4 * len(tables), comparison_height(num_places) + 0.3)
    figure, panels = new_figure(LIGHT, *size, columns=len(tables))
    for axes, table in zip(panels, tables, strict=True):
        draw_comparison(axes, evaluation, table, LIGHT, num_places=num_places)
        add_heading(axes, LIGHT, table.title)
    return to_png(figure)
