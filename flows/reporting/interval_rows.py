"""Rows of a picture that have a name at the left, and a value with two intervals."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from flows.reporting.themes import Theme

Interval = tuple[float, float]


def name_rows(axes: Axes, names: Sequence[str], theme: Theme, *, num_places: int | None = None) -> None:
    """Names the rows, from the bottom; with more places than rows the lowest are left empty."""
    count = len(names)
    axes.set_ylim(count - (num_places or count) - 0.7, count - 0.3)
    axes.set_yticks(range(count), names)
    axes.tick_params(axis="y", labelsize=7.5, labelcolor=theme.ink)
    axes.grid(visible=False, axis="y")


def draw_intervals(
    axes: Axes, place: int, over_tasks: Interval | None, over_seeds: Interval | None, colour: str
) -> None:
    """Draws a line over tasks and a bar over seeds; nothing for one that is not known."""
    for ends, width, alpha in ((over_tasks, 1.2, 1.0), (over_seeds, 5.0, 0.45)):
        if ends is not None:
            axes.plot(ends, [place, place], color=colour, linewidth=width, alpha=alpha, solid_capstyle="butt")


def draw_value(axes: Axes, place: int, value: float, marker: str, colour: str, theme: Theme) -> None:
    """Draws the value, also on the edge of the picture."""
    axes.plot(
        value, place, marker, color=colour, markersize=5.5, markeredgecolor=theme.surface, clip_on=False
    )
