"""Plots of what happened before the evaluation: meta-training curves and the run-time model."""

from __future__ import annotations

import math
from typing import Literal

from matplotlib.axes import Axes

from flows.reporting.data import PhaseReport, ReportData, RuntimeModelReport
from flows.reporting.formatting import seconds_text
from flows.reporting.statistics import moving_trend, smoothing_window
from flows.reporting.themes import LIGHT, Theme, add_heading, log_axis, new_figure, to_png

LegendLocation = Literal["best", "upper right", "upper left"]
_FAMILY_MARKERS = ("o", "s", "^", "D", "v", "P")


def draw_phase(axes: Axes, phase: PhaseReport, theme: Theme) -> None:
    """Draws one phase: every outer step, their trend, and the validation tasks.

    Non-finite outer steps leave a gap in the raw line; they are left out of the trend.
    """
    raw, steps = [v if math.isfinite(v) else math.nan for v in phase.meta_loss], list(phase.outer_step)
    window = smoothing_window(len(raw))
    axes.plot(steps, raw, color=theme.series[0], linewidth=0.9, alpha=0.35, label="each outer step")
    trend = moving_trend(raw, window)
    axes.plot(steps, trend, color=theme.series[0], linewidth=2.2, label=f"trend over {window} steps")
    if phase.validation:
        at = [point.outer_step for point in phase.validation]
        now = [point.meta_loss for point in phase.validation]
        before = [point.initial_meta_loss for point in phase.validation]
        axes.plot(
            at,
            before,
            color=theme.series[3],
            linewidth=1.3,
            linestyle=(0, (1.2, 1.4)),
            label="validation, θ₀",
        )
        axes.plot(
            at, now, color=theme.series[1], linewidth=1.3, marker="o", markersize=4.5, label="validation, θ"
        )
    axes.set_xlabel("outer step")
    axes.set_ylabel(phase.meta_loss_label)
    axes.margins(x=0.02, y=0.08)


def draw_runtime_model(axes: Axes, report: RuntimeModelReport, theme: Theme) -> None:
    """Draws predicted against measured seconds per step, with the band of a factor of two."""
    values = [v for p in report.points for v in (p.measured_seconds, p.predicted_seconds)]
    low, high = (min(values) / 1.5, max(values) * 1.5) if values else (1e-5, 1e-2)
    axes.fill_between(
        [low, high], [low / 2, high / 2], [low * 2, high * 2], color=theme.grid, alpha=0.6, linewidth=0
    )
    axes.plot([low, high], [low, high], color=theme.muted, linewidth=1.0)
    families = sorted({point.family for point in report.points})
    for number, family in enumerate(families):
        points = [point for point in report.points if point.family == family]
        axes.scatter(
            [point.measured_seconds for point in points],
            [point.predicted_seconds for point in points],
            s=20,
            marker=_FAMILY_MARKERS[number % len(_FAMILY_MARKERS)],
            facecolor=theme.series[number % len(theme.series)],
            edgecolor=theme.surface,
            linewidth=0.5,
            label=f"{family} (n = {len(points)})",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        log_axis(axis, low, high, seconds_text)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel("measured time of one step")
    axes.set_ylabel("predicted")


def add_legend(axes: Axes, theme: Theme, *, location: LegendLocation = "best") -> None:
    """Adds the house legend: no frame, small type."""
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(loc=location, fontsize=7.5, frameon=False, labelcolor=theme.ink, handlelength=1.8)


def meta_training_png(data: ReportData) -> bytes:
    """Returns the meta-training curves as PNG bytes, one panel per phase.

    Raises:
      ValueError: If there is no phase in `data`.
    """
    if not data.phases:
        raise ValueError("`data.phases` must not be empty: run `keirin train` first.")
    columns = len(data.phases)
    figure, panels = new_figure(LIGHT, 4.6 * columns, 3.2, columns=columns)
    for axes, phase in zip(panels, data.phases, strict=True):
        draw_phase(axes, phase, LIGHT)
        low, high = phase.horizon
        add_heading(axes, LIGHT, f"{phase.name} · horizon {low}–{high}")
        add_legend(axes, LIGHT)
    return to_png(figure)


def runtime_model_png(data: ReportData) -> bytes:
    """Returns predicted against measured step times as PNG bytes.

    Raises:
      ValueError: If `data` has no run-time model.
    """
    if data.runtime_model is None:
        raise ValueError("`data.runtime_model` must not be None: run `keirin fit` first.")
    figure, (axes,) = new_figure(LIGHT, 4.4, 3.8)
    draw_runtime_model(axes, data.runtime_model, LIGHT)
    add_heading(axes, LIGHT, "Run-time model on configurations it had not seen")
    add_legend(axes, LIGHT)
    return to_png(figure)
