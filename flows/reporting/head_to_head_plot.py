"""The picture of head to head: how often the candidate ends lower than each of the others, the strongest on top."""

from __future__ import annotations

from matplotlib.axes import Axes

from flows.reporting.comparison_plot import comparison_height
from flows.reporting.data import EvaluationReport, ReportData
from flows.reporting.evaluation_rows import untrained_name
from flows.reporting.formatting import plural
from flows.reporting.themes import LIGHT, Theme, add_heading, new_figure, to_png


def draw_head_to_head(axes: Axes, evaluation: EvaluationReport, theme: Theme) -> None:
    """Draws a row per opponent: a dot is the probability that the candidate ends lower, the bar its 95 % interval
    over seeds, the line the one over tasks. At the line in the middle both end lower equally often."""
    rows = evaluation.head_to_head[::-1]
    untrained = untrained_name(evaluation.candidate.label)
    for place, row in enumerate(rows):
        colour = theme.series[3] if row.name == untrained else theme.muted
        for ends, width, alpha in ((row.over_tasks, 1.2, 1.0), (row.over_seeds, 5.0, 0.45)):
            if ends is not None:
                places = [place, place]
                axes.plot(ends, places, color=colour, linewidth=width, alpha=alpha, solid_capstyle="butt")
        axes.plot(
            row.probability,
            place,
            "o",
            color=colour,
            markersize=5.5,
            markeredgecolor=theme.surface,
            clip_on=False,
        )
    axes.set_xlim(0.0, 1.0)
    axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.tick_params(axis="y", labelsize=7.5, labelcolor=theme.ink)
    axes.grid(visible=False, axis="y")
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
