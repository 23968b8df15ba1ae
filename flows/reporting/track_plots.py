"""Plots of percentile tracks: the evaluation of a training run's checkpoints over its outer steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from flows.reporting.data import TrackPoint, TrackReport
from flows.reporting.formatting import count_text, plural
from flows.reporting.themes import LIGHT, Theme, add_heading, log_axis, new_figure, to_png

_FLOOR = 0.05
"""Where a speed-up of 0 is drawn on the logarithmic axis."""
_MIDDLE, _MEAN = 50, "middle half"
_AXIS_POINTS, _LINE_POINTS = 210.0, 9.0
"""Height of the axis, about, and of a line of type, in points."""
_BANDS = ((5, 90, 0.07), (25, 75, 0.12))
"""Shaded between two percentiles, with that opacity."""


def draw_tracks(axes: Axes, track: TrackReport, theme: Theme) -> None:
    """Draws, as VeLO's Figure 22 does, percentiles over tasks of the speed-up against the outer step.

    Every percentile is a line with its name at its end, the median the bold one; the interquartile mean is
    dashed, with its interval over seeds. All share one axis here, where the paper has one each, so that they
    can be compared.
    """
    steps = [point.outer_step for point in track.points]
    lines = {p: [_shown(dict(point.percentiles)[p]) for point in track.points] for p in _percentiles(track)}
    means = [_shown(point.interquartile_mean) for point in track.points]
    colour, other = theme.series[0], theme.series[1]
    for low, high, opacity in _BANDS:
        if {low, high} <= set(lines):
            axes.fill_between(steps, lines[low], lines[high], color=colour, alpha=opacity, linewidth=0)
    for percentile, values in lines.items():
        width = 2.2 if percentile == _MIDDLE else 1.1
        axes.plot(steps, values, color=colour, linewidth=width, marker="o", markersize=2.2 * width**0.5)
    axes.plot(steps, means, color=other, linewidth=1.5, linestyle=(0, (4.0, 1.6)))
    axes.vlines(*_intervals(track.points), color=other, linewidth=1.0)
    shown = [value for values in (*lines.values(), means) for value in values]
    if any(point.bounds for point in track.points):
        shown.append(track.max_speedup)
        _draw_cap(axes, track.max_speedup, theme)
    bottom, top = min([0.8, *shown]) / 1.15, max([1.25, *shown]) * 1.15
    _scale(axes, theme, steps[-1], bottom, top)
    names = [(values[-1], f"{percentile} %", colour) for percentile, values in lines.items()]
    _name_lines(axes, [*names, (means[-1], _MEAN, other)], steps[-1], math.log(top / bottom))


def _draw_cap(axes: Axes, cap: float, theme: Theme) -> None:
    """Draws the largest speed-up that could be seen: a line that has come there says no more."""
    axes.axhline(cap, color=theme.muted, linewidth=0.8, linestyle=(0, (1.0, 2.0)), zorder=1)
    axes.annotate(
        "no more can be seen", (0.0, cap), xycoords=("axes fraction", "data"), xytext=(4, 2),
        textcoords="offset points", fontsize=6.5, color=theme.muted,
    )  # fmt: skip


def _scale(axes: Axes, theme: Theme, last_step: int, bottom: float, top: float) -> None:
    axes.set_yscale("log")
    log_axis(axes.yaxis, bottom, top, lambda value: f"{value:g}×")
    axes.set_ylim(bottom, top)
    axes.set_xlim(0, 1.02 * max(last_step, 1))  # from the start of training, also where it isn't evaluated
    axes.axhline(1.0, color=theme.ink, linewidth=1.0, zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: count_text(int(value)))
    axes.set_xlabel("outer step")
    axes.set_ylabel("speed-up in steps")


def _name_lines(axes: Axes, ends: Sequence[tuple[float, str, str]], last_step: int, log_range: float) -> None:
    """Writes names beside the lines' last points, moved up where two would touch.

    Args:
      axes: Where the lines are.
      ends: Last value, name and colour of each line.
      last_step: Where they end.
      log_range: What the height of the axis stands for.
    """
    placed = -math.inf
    for value, name, colour in sorted(ends):
        natural = _AXIS_POINTS / log_range * math.log(value)
        placed = max(natural, placed + _LINE_POINTS)
        axes.annotate(
            name, (last_step, value), xytext=(8, placed - natural), textcoords="offset points", va="center",
            fontsize=7.5, color=colour, annotation_clip=False,
        )  # fmt: skip


def _intervals(points: Sequence[TrackPoint]) -> tuple[list[int], list[float], list[float]]:
    """Returns steps and both ends, of the points that have an interval: with one seed none has."""
    found = [(p.outer_step, p.low, p.high) for p in points if p.low is not None and p.high is not None]
    return (
        [n for n, _, _ in found],
        [_shown(low) for _, low, _ in found],
        [_shown(high) for _, _, high in found],
    )


def _percentiles(track: TrackReport) -> list[int]:
    return [percentile for percentile, _ in track.points[0].percentiles]


def _shown(value: float) -> float:
    return max(value, _FLOOR)


def track_sentence(track: TrackReport) -> str:
    """Returns what the picture is of."""
    return (
        f"{track.set_name}: {plural(track.num_tasks, 'task')}, {plural(track.num_seeds, 'seed')}, "
        f"{count_text(track.horizon)} inner steps; {plural(len(track.points), 'checkpoint')}"
    )


def track_png(track: TrackReport) -> bytes:
    """Returns a run's percentile tracks as PNG bytes.

    Raises:
      ValueError: If no checkpoint has been evaluated.
    """
    if not track.points:
        raise ValueError("`track.points` must not be empty: run `keirin follow` first.")
    figure, (axes,) = new_figure(LIGHT, 6.4, 3.8)
    draw_tracks(axes, track, LIGHT)
    add_heading(axes, LIGHT, f"{track.run}\n{track_sentence(track)}")
    return to_png(figure)
