"""Plots of meta-training."""

from __future__ import annotations

import math

from matplotlib.axes import Axes

from flows.reporting.data import PhaseReport, ReportData
from flows.reporting.statistics import moving_trend, smoothing_window
from flows.reporting.themes import LIGHT, Theme, add_heading, new_figure, to_png


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


def add_legend(axes: Axes, theme: Theme) -> None:
    """Adds the house legend: no frame, small type."""
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(loc="best", fontsize=7.5, frameon=False, labelcolor=theme.ink, handlelength=1.8)


def add_legend_below(axes: Axes, theme: Theme) -> None:
    """Adds the house legend under the axes, where lines may be everywhere within them."""
    axes.legend(
        loc="upper left", bbox_to_anchor=(0.0, -0.17), fontsize=7.5, frameon=False, labelcolor=theme.ink,
        handlelength=3.0, borderaxespad=0.0,
    )  # fmt: skip


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
