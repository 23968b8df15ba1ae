"""The picture of head to head: how often the candidate ends lower than each of the others, the strongest on top."""

from __future__ import annotations

from matplotlib.axes import Axes

from flows.reporting.comparison_plot import comparison_height
from flows.reporting.data import EvaluationReport, ReportData
from flows.reporting.evaluation_rows import untrained_name
from flows.reporting.formatting import plural
from flows.reporting.interval_rows import draw_intervals, draw_value, name_rows
from flows.reporting.themes import LIGHT, Theme, add_heading, new_figure, to_png


def draw_head_to_head(axes: Axes, evaluation: EvaluationReport, theme: Theme) -> None:
    """Draws a row per opponent: a dot is the probability that the candidate ends lower, the bar its 95 % interval
    over seeds, the line the one over tasks. At the line in the middle both end lower equally often."""
    rows = evaluation.head_to_head[::-1]
    untrained = untrained_name(evaluation.candidate.label)
    for place, row in enumerate(rows):
        colour = theme.series[3] if row.name == untrained else theme.muted
        draw_intervals(axes, place, row.over_tasks, row.over_seeds, colour)
        draw_value(axes, place, row.probability, "o", colour, theme)
    axes.set_xlim(0.0, 1.0)
    axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    name_rows(axes, [row.name for row in rows], theme)
    axes.axvline(0.5, color=theme.ink, linewidth=1.0)
    count = f"{plural(rows[0].num_tasks, 'task')} × {plural(rows[0].num_seeds, 'seed')}"
    axes.set_xlabel(f"{evaluation.candidate.label} ends lower ({count})")


def head_to_head_png(data: ReportData) -> bytes:
    """Returns the picture as PNG bytes.

    Raises:
      ValueError: If `data` has no evaluation, or one without anything to compare with.
    """
    evaluation = data.evaluation
    if evaluation is None or not evaluation.head_to_head:
        raise ValueError("`data` has nothing to compare head to head: run `keirin evaluate` first.")
    figure, (axes,) = new_figure(LIGHT, 6.4, comparison_height(len(evaluation.head_to_head)) + 0.3)
    draw_head_to_head(axes, evaluation, LIGHT)
    add_heading(axes, LIGHT, "Head to head")
    return to_png(figure)
