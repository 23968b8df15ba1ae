"""One drawer for every probe: axes, lines, points and tables from a `ProbeResult`, whatever it is about."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure

from curriculum.probes import Panel, ProbeResult, Series
from flows.reporting.themes import LIGHT, Theme, add_heading, log_axis, new_figure, to_png

ORDERED = "viridis"
"""Colours of an ordered row; its brightest end is left out, which is hard to see on white."""
MAX_RATIO = 1e6
"""Between the ends of a logarithmic axis: what has reached zero must not flatten the rest."""
_CATEGORIES = (0, 1, 2, 4, 3, 5)
_BASELINES = (1, 2, 4, 5)
_MAX_LEGEND = 10
"""More entries than this make a legend nobody reads: the first and the last then stand for an ordered row."""


def probe_png(result: ProbeResult) -> bytes:
    """Returns a probe's picture as PNG bytes: its panels, its question, and what n counts."""
    columns = min(result.columns, len(result.panels))
    rows = math.ceil(len(result.panels) / columns)
    height = 3.7 if any(panel.equal_axes for panel in result.panels) else 3.4
    figure, axes = new_figure(LIGHT, max(4.3 * columns, 6.4), height * rows + 0.9, rows=rows, columns=columns)
    for pair, panel in zip(axes, result.panels, strict=False):
        draw_panel(pair, panel, LIGHT)
    for pair in axes[len(result.panels) :]:
        pair.set_visible(False)
    _add_texts(figure, result)
    return to_png(figure)


def draw_panel(axes: Axes, panel: Panel, theme: Theme) -> None:
    """Draws one panel."""
    add_heading(axes, theme, textwrap.fill(panel.title, 52))
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    if panel.kind == "table":
        _draw_table(axes, panel, theme)
        return
    for series, colour in zip(panel.series, _colours(panel.series, theme), strict=True):
        if panel.kind == "points" and series.role in ("subject", "category"):
            _draw_points(axes, panel, series, colour)
        else:
            _draw_line(axes, series, colour, theme)
    if panel.equal_axes:
        axes.set_aspect("equal", adjustable="box")
    if panel.limit is not None:
        axes.set_xlim(-panel.limit, panel.limit)
        axes.set_ylim(-panel.limit, panel.limit)
    _set_scales(axes, panel)
    if panel.kind == "lines":
        _set_whole_ticks(axes, panel)
    if panel.y_range is not None:
        axes.set_ylim(panel.y_range)
    _add_legend(axes, panel, theme)


def _colours(series: Sequence[Series], theme: Theme) -> list[str]:
    """Returns a colour per series: by its role, and its place among those of the same role."""
    counts: dict[str, int] = {}
    num_ordered = sum(s.role == "ordered" for s in series)
    chosen: list[str] = []
    pairs = any(s.shape == "dashed" for s in series)
    for s in series:
        place = counts.get(s.role, 0)
        counts[s.role] = place + 1
        match s.role:
            case "subject":
                chosen.append(theme.series[0])
            case "reference":
                chosen.append(theme.muted)
            case "other":
                chosen.append(theme.series[3])
            case "ordered":
                chosen.append(to_hex(colormaps[ORDERED](0.92 * place / max(num_ordered - 1, 1))))
            case "baseline":
                chosen.append(theme.series[_BASELINES[_pair(s, series, place) % len(_BASELINES)]])
            case "category":
                number = _pair(s, series, place) if pairs else place
                chosen.append(theme.series[_CATEGORIES[number % len(_CATEGORIES)]])
    return chosen


def _pair(series: Series, all_series: Sequence[Series], place: int) -> int:
    """Returns a series' place where a solid and a dashed one that follow each other share a colour."""
    same = [s for s in all_series if s.role == series.role]
    return sum(s.shape == "solid" for s in same[: place + 1]) - 1 if len(same) > place else place


def _draw_line(axes: Axes, series: Series, colour: str, theme: Theme) -> None:
    is_reference, is_subject = series.role == "reference", series.role == "subject"
    only_points = series.marked and series.shape == "dashed" and not series.name
    if series.low and len(series.x) > 1:
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.14, linewidth=0)
    axes.plot(
        series.x,
        series.y,
        color=colour,
        linewidth=0.9 if is_reference else 2.2 if is_subject else 1.4,
        linestyle="none" if only_points else (0, (2, 2)) if is_reference else _dashes(series),
        marker="o" if series.marked else None,
        markersize=4.5,
        alpha=0.55 if series.role == "other" and series.shape == "solid" else 1.0,
        label=_label(series),
        zorder=2.5 if is_subject else 3 if series.shape == "dashed" else 2,  # a dashed line covers nothing
    )
    if series.name == "trajectory":  # a small dot where each starts
        axes.plot(series.x[0], series.y[0], "o", color=theme.muted, markersize=2.5)


def _dashes(series: Series) -> str | tuple[float, tuple[float, float]]:
    return "solid" if series.shape == "solid" else (0.0, (4.0, 1.6))


def _draw_points(axes: Axes, panel: Panel, series: Series, colour: str) -> None:
    size = 28 if series.marked else 7
    if series.colour:
        values = np.asarray(series.colour)
        norm = Normalize(values.min(), values.max())
        drawn = axes.scatter(series.x, series.y, s=size, c=values, cmap=ORDERED, norm=norm, linewidth=0)
        bar = axes.figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.02)
        bar.set_label(panel.colour_label, fontsize=8)
        bar.ax.tick_params(labelsize=7.5, length=0)
        bar.outline.set_visible(False)
        return
    axes.scatter(
        series.x, series.y, s=size, color=colour, linewidth=0, alpha=0.85, zorder=3, label=_label(series)
    )


def _draw_table(axes: Axes, panel: Panel, theme: Theme) -> None:
    """Draws a table whose cells are shaded by their numbers and carry them."""
    values = np.asarray(panel.values)
    axes.imshow(
        values, cmap="Blues", vmin=0.0, vmax=max(float(np.nanmax(values)), 1e-9) * 1.25, aspect="auto"
    )
    is_share = panel.colour_label.startswith("share")
    for (row, column), value in np.ndenumerate(values):
        text = f"{100 * value:.0f} %" if is_share else f"{value:.2g}"
        is_dark = value > 0.75 * float(np.nanmax(values))
        colour = theme.surface if is_dark else theme.ink
        axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color=colour)
    turn = max(map(len, panel.columns)) * len(panel.columns) > 45
    axes.set_xticks(
        range(len(panel.columns)), panel.columns, rotation=25 if turn else 0, ha="right" if turn else "center"
    )
    axes.set_yticks(range(len(panel.rows)), panel.rows)
    axes.grid(visible=False)
    axes.set_xlabel(f"{panel.x_label}  (cells: {panel.colour_label})")


def _set_scales(axes: Axes, panel: Panel) -> None:
    numbers = {
        "x": [v for s in panel.series for v in s.x],
        "y": [v for s in panel.series for v in (*s.y, *s.low, *s.high)],
    }
    for name, scale in (("x", panel.x_scale), ("y", panel.y_scale)):
        positive = [v for v in numbers[name] if math.isfinite(v) and v > 0.0]
        if scale != "log" or not positive:
            continue
        high = max(positive)
        low = max(min(positive), high / MAX_RATIO)
        getattr(axes, f"set_{name}scale")("log")
        log_axis(getattr(axes, f"{name}axis"), low, high * 1.0001, _tick)
        if name == "y":
            axes.set_ylim(low / 1.1, high * 1.1)


def _set_whole_ticks(axes: Axes, panel: Panel) -> None:
    """Puts the ticks of an axis of few whole numbers at those."""
    found = sorted({x for series in panel.series for x in series.x})
    most = 12 if panel.x_scale == "linear" else 8
    if len(found) <= most and all(x == round(x) and abs(x) < 1e6 for x in found):
        axes.set_xticks(found, [_tick(x) if x > 0 else f"{x:.0f}" for x in found])


def _tick(value: float) -> str:
    """Returns an axis number: plain where that is short, else a power of ten."""
    if 1e-3 <= value < 1e6:
        return (
            f"{value:,.0f}".replace(",", "\u202f") if value >= 1.0 and value == round(value) else f"{value:g}"
        )
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = value / 10.0**exponent
    return rf"${mantissa:.0f}{{\cdot}}10^{{{exponent}}}$" if round(mantissa) != 1 else rf"$10^{{{exponent}}}$"


def _label(series: Series) -> str:
    """Returns the legend's entry; none where another series stands for this one."""
    if not series.name or series.name == "trajectory":
        return "_"
    return series.name


def _add_legend(axes: Axes, panel: Panel, theme: Theme) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > _MAX_LEGEND:
        handles, labels = [handles[0], handles[-1]], [f"{labels[0]} (first)", f"{labels[-1]} (last)"]
    if not handles:
        return
    axes.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        ncols=2 if len(handles) > 2 else 1,
        fontsize=7.5,
        frameon=False,
        labelcolor=theme.ink,
        handlelength=2.2,
    )


def _add_texts(figure: Figure, result: ProbeResult) -> None:
    inches = figure.get_figwidth()
    figure.suptitle(
        f"{result.title} · {result.subject}\n" + textwrap.fill(result.question, int(11 * inches)),
        x=0.01,
        ha="left",
        fontsize=10.5,
        color=LIGHT.ink,
    )
    figure.supxlabel(
        textwrap.fill(f"{_counts(result)} After {result.source}.", int(16 * inches)),
        x=0.01,
        ha="left",
        fontsize=7.5,
        color=LIGHT.muted,
    )


def _counts(result: ProbeResult) -> str:
    """Returns what n counts: "n = 3 runs with different initialisations"."""
    shades = any(s.low for panel in result.panels for s in panel.series)
    return f"n = {result.n:,} {result.counted}{'; shades: lowest to highest' if shades else ''}."
