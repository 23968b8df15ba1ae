"""Plots of the run-time model: predicted against measured, all families and each, and what a budget accepts."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flows.reporting.data import ReportData, RuntimeModelReport, TimingPoint
from flows.reporting.formatting import percent_text, seconds_text
from flows.reporting.themes import LIGHT, Theme, add_heading, log_axis, new_figure, to_png
from flows.reporting.training_plots import add_legend

_FAMILY_MARKERS = ("o", "s", "^", "D", "v", "P")
MAX_LEGEND = 8
COLUMNS = 4


def draw_runtime_model(axes: Axes, report: RuntimeModelReport, theme: Theme) -> None:
    """Draws predicted against measured seconds per step, with the band of a factor of two."""
    low, high = _limits(report.points)
    _frame(axes, theme, low, high)
    families = sorted({point.family for point in report.points})
    for number, family in enumerate(families):
        points = [point for point in report.points if point.family == family]
        axes.scatter(
            [point.measured_seconds for point in points],
            [point.predicted_seconds for point in points],
            s=20 if len(report.points) < 300 else 7,
            marker=_FAMILY_MARKERS[number % len(_FAMILY_MARKERS)],
            facecolor=theme.series[number % len(theme.series)],
            edgecolor=theme.surface,
            linewidth=0.5 if len(report.points) < 300 else 0.2,
            label=f"{family} (n = {len(points)})" if len(families) <= MAX_LEGEND else None,
        )
    axes.set_xlabel("measured time of one step")
    axes.set_ylabel("predicted")


def draw_family(axes: Axes, points: tuple[TimingPoint, ...], theme: Theme) -> None:
    """Draws one family's predictions with their 80 % intervals."""
    low, high = _limits(points)
    _frame(axes, theme, low, high)
    measured = np.asarray([point.measured_seconds for point in points])
    predicted = np.asarray([point.predicted_seconds for point in points])
    bars = [(p.predicted_seconds / p.low_seconds, p.high_seconds / p.predicted_seconds) for p in points]
    below, above = (
        predicted * (1 - 1 / np.asarray([b for b, _ in bars])),
        predicted * (np.asarray([a for _, a in bars]) - 1),
    )
    axes.errorbar(
        measured,
        predicted,
        yerr=np.stack([below, above]),
        fmt="o",
        markersize=2.5,
        linewidth=0,
        elinewidth=0.5,
        color=theme.series[0],
        ecolor=theme.muted,
    )


def draw_accepted(axes: Axes, report: RuntimeModelReport, theme: Theme) -> None:
    """Draws the predicted seconds of accepted tasks: a row per family, a colour per budget, whose line it is."""
    families = sorted({name for accepted in report.accepted for name in accepted.families})
    handles = []
    for number, accepted in enumerate(report.accepted):
        color = theme.series[number % len(theme.series)]
        rows = [families.index(name) for name in accepted.families]
        shift = 0.5 * (number - (len(report.accepted) - 1) / 2) / max(1, len(report.accepted))
        axes.scatter(
            accepted.seconds, [row + shift for row in rows], s=7, color=color, alpha=0.6, linewidth=0
        )
        axes.axvline(accepted.budget_seconds, color=color, linewidth=1.0, linestyle=(0, (4, 2)))
        label = (
            f"≤ {seconds_text(accepted.budget_seconds)}: {percent_text(accepted.acceptance_rate)} of draws"
        )
        handles.append(Line2D([], [], color=color, marker="o", linewidth=0, markersize=4, label=label))
    axes.set_yticks(range(len(families)), families)
    axes.set_xscale("log")
    seconds = [s for accepted in report.accepted for s in accepted.seconds]
    if seconds:
        budgets = [accepted.budget_seconds for accepted in report.accepted]
        log_axis(axes.xaxis, min(seconds) / 1.5, max(*seconds, *budgets) * 1.5, seconds_text)
    axes.set_xlabel("predicted time of one step")
    axes.invert_yaxis()
    if handles:
        axes.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=2,
            fontsize=7,
            frameon=False,
            labelcolor=theme.ink,
        )


def runtime_model_png(data: ReportData) -> bytes:
    """Returns predicted against measured step times as PNG bytes.

    Raises:
      ValueError: If `data` has no run-time model.
    """
    figure, (axes,) = new_figure(LIGHT, 4.4, 3.8)
    draw_runtime_model(axes, _report(data), LIGHT)
    add_heading(axes, LIGHT, "Run-time model on configurations it had not seen")
    add_legend(axes, LIGHT)
    return to_png(figure)


def families_figure(report: RuntimeModelReport, theme: Theme) -> Figure:
    """Returns one scatter plot per family, with its median error."""
    families = sorted({point.family for point in report.points})
    columns = max(1, min(COLUMNS, len(families)))
    rows = max(1, -(-len(families) // columns))
    figure, panels = new_figure(theme, max(3.2, 3.0 * columns), 2.6 * rows, columns=columns, rows=rows)
    for axes, family in zip(panels, families, strict=False):
        points = tuple(point for point in report.points if point.family == family)
        draw_family(axes, points, theme)
        errors = [abs(p.predicted_seconds / p.measured_seconds - 1) for p in points]
        add_heading(axes, theme, f"{family} · {percent_text(float(np.median(errors)))} · n = {len(points)}")
    for axes in panels[len(families) :]:
        axes.set_visible(False)
    return figure


def runtime_model_families_png(data: ReportData) -> bytes:
    """Returns one scatter plot per family as PNG bytes.

    Raises:
      ValueError: If `data` has no run-time model.
    """
    return to_png(families_figure(_report(data), LIGHT))


def accepted_tasks_png(data: ReportData) -> bytes:
    """Returns what each budget accepts as PNG bytes.

    Raises:
      ValueError: If `data` has no run-time model.
    """
    report = _report(data)
    families = {name for accepted in report.accepted for name in accepted.families}
    figure, (axes,) = new_figure(LIGHT, 6.0, 2.2 + 0.32 * len(families))
    draw_accepted(axes, report, LIGHT)
    return to_png(figure)


def _report(data: ReportData) -> RuntimeModelReport:
    if data.runtime_model is None:
        raise ValueError("`data.runtime_model` must not be None: run `keirin fit` first.")
    return data.runtime_model


def _limits(points: tuple[TimingPoint, ...]) -> tuple[float, float]:
    values = [v for p in points for v in (p.measured_seconds, p.predicted_seconds)]
    return (min(values) / 1.5, max(values) * 1.5) if values else (1e-5, 1e-2)


def _frame(axes: Axes, theme: Theme, low: float, high: float) -> None:
    axes.fill_between(
        [low, high], [low / 2, high / 2], [low * 2, high * 2], color=theme.grid, alpha=0.6, linewidth=0
    )
    axes.plot([low, high], [low, high], color=theme.muted, linewidth=1.0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        log_axis(axis, low, high, seconds_text)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
