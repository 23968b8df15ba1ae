"""Colours, axes and the two ways out of Matplotlib: PNG bytes, and SVG that follows the page's theme.

Figures are made with Matplotlib's object interface; no pyplot, no current figure. For the page a figure is
drawn once with stand-in colours that are then replaced by CSS variables, so that one SVG serves light and
dark, and its labels stay text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from flows.reporting.data import OptimizerInfo

Dashes = tuple[float, tuple[float, ...]] | str


@dataclass(frozen=True)
class Theme:
    """Colours of one rendering."""

    ink: str
    muted: str
    grid: str
    surface: str
    good: str
    bad: str
    series: tuple[str, ...]


LIGHT = Theme(
    ink="#1a2027",
    muted="#5d6875",
    grid="#dfe3e8",
    surface="#ffffff",
    good="#1f5fd0",
    bad="#c03d1f",
    series=("#1f5fd0", "#c77400", "#0b8a68", "#8a5cd6", "#b8396f", "#5f6b1e"),
)
"""For PNG files."""

THEMED = Theme(
    ink="#010101",
    muted="#010102",
    grid="#010103",
    surface="#010104",
    good="#010105",
    bad="#010106",
    series=tuple(f"#01020{number}" for number in range(len(LIGHT.series))),
)
"""Stand-ins that `to_svg` replaces by the CSS variables of report.css."""

_VARIABLES = {
    **{
        getattr(THEMED, name): f"var(--{name})" for name in ("ink", "muted", "grid", "surface", "good", "bad")
    },
    **{colour: f"var(--series-{number})" for number, colour in enumerate(THEMED.series)},
}
_CANDIDATE, _INITIALISATION = 0, 3
_BASELINES = (1, 2, 4, 5)
_PATTERNS: tuple[Dashes, ...] = ("solid", (0.0, (5.0, 1.6)), (0.0, (3.0, 1.2, 1.0, 1.2)), (0.0, (1.0, 1.0)))


@dataclass(frozen=True)
class Stroke:
    """How the line of one optimizer is drawn; `number` is its place in `Theme.series`."""

    number: int
    width: float
    dashes: Dashes


def strokes(optimizers: Sequence[OptimizerInfo]) -> dict[str, Stroke]:
    """Gives every optimizer a colour and a dash pattern: told apart without colour, too."""
    result: dict[str, Stroke] = {}
    num_baselines = 0
    for info in optimizers:
        if info.role == "candidate":
            result[info.name] = Stroke(_CANDIDATE, 2.4, "solid")
        elif info.role == "initialisation":
            result[info.name] = Stroke(_INITIALISATION, 1.5, (0.0, (1.2, 1.4)))
        else:
            number = _BASELINES[num_baselines % len(_BASELINES)]
            result[info.name] = Stroke(number, 1.5, _PATTERNS[num_baselines % len(_PATTERNS)])
            num_baselines += 1
    return result


def new_figure(
    theme: Theme, width: float, height: float, *, rows: int = 1, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """Returns a figure of that size in inches and its axes, row by row, in the house style."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=theme.surface)
    grid = figure.subplots(rows, columns, squeeze=False)
    panels = [axes for row in grid for axes in row]
    for axes in panels:
        _style(axes, theme)
    return figure, panels


def _style(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.surface)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.grid)
    axes.grid(visible=True, color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelsize=8, length=0, pad=4, which="both")
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.muted)
        label.set_fontsize(8.5)


def add_heading(axes: Axes, theme: Theme, text: str) -> None:
    """Puts a heading above the top left corner."""
    axes.set_title(text, loc="left", fontsize=9.5, color=theme.ink)


def log_axis(axis: Axis, low: float, high: float, text: Callable[[float], str]) -> None:
    """Puts a logarithmic axis over [low, high], with round ticks labelled as plain numbers."""
    decades = high / low
    steps = (1.0, 2.0, 5.0) if decades < 60.0 else (1.0, 3.0) if decades < 1e3 else (1.0,)
    axis.set_major_locator(LogLocator(base=10.0, subs=steps, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def to_png(figure: Figure, *, dots_per_inch: int = 160) -> bytes:
    """Renders a figure to PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch)
    return buffer.getvalue()


def to_svg(figure: Figure, *, name: str, title: str) -> Markup:
    """Renders a figure drawn with `THEMED` as inline SVG.

    Args:
      figure: Drawn with the stand-in colours.
      name: Unique on the page; prefixes the identifiers, so that two figures never share a clip path.
      title: What a screen reader says.
    """
    buffer = io.StringIO()
    # Text stays text (small, selectable, in the page's font); a fixed salt makes identifiers reproducible.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Type", "Format")))
    svg = buffer.getvalue()
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    box = re.search(r'viewBox="([^"]*)"', svg)
    assert box is not None, "Matplotlib writes a viewBox"
    # A viewBox without width and height: the page's columns decide the size.
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    body = re.sub(r"\n\s*", "\n", body)
    start = f'<svg role="img" aria-label="{escape(title)}" viewBox="{box[1]}">'
    return Markup(start + body)  # Matplotlib escapes the labels it was given
