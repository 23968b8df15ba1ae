"""Small plots written by hand, lines and bars: under a millisecond each, where Matplotlib takes a hundred.

Colours are the page's CSS variables; the page's columns decide the size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from flows.reporting.formatting import loss_text

LEFT, RIGHT, TOP, BOTTOM = 52.0, 10.0, 10.0, 24.0
MAX_TICKS = 4


@dataclass(frozen=True)
class Box:
    """The size of a plot, in the units of its texts."""

    width: float
    height: float

    @property
    def right(self) -> float:
        """Where the vertical axis's lines end."""
        return self.width - RIGHT

    @property
    def bottom(self) -> float:
        """Where the horizontal axis is."""
        return self.height - BOTTOM


NARROW, WIDE = Box(260.0, 150.0), Box(500.0, 210.0)


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Attributes:
      steps: Outer steps, ascending.
      values: As many.
      series: Number of its colour.
      faint: Whether it stays in the background.
      dots: Whether its points are marked.
    """

    steps: Sequence[float]
    values: Sequence[float]
    series: int = 0
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Scale:
    """Maps values between `low` and `high` to pixels between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """A few round values inside."""
        decades = _log_ticks(self.low, self.high) if self.log else []
        if len(decades) > 1:
            return decades
        step = _round_step((self.high - self.low) / MAX_TICKS)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [min(max((first + i) * step, self.low), self.high) for i in range(count)]


def line_plot(
    lines: Sequence[Line],
    *,
    title: str,
    log: bool = False,
    limits: tuple[float, float] | None = None,
    mark: float | None = None,
    text: Callable[[float], str] = loss_text,
    box: Box = NARROW,
) -> Markup:
    """Returns a plot over outer steps as inline SVG.

    Args:
      lines: What to draw, the last on top.
      title: What a screen reader says.
      log: Whether the vertical axis is logarithmic; values of 0 and below are then left out.
      limits: Of the vertical axis; None: what the values span.
      mark: A value at which a horizontal line is drawn.
      text: How ticks are written.
      box: Its size.
    """
    drawn = [_usable(line, log) for line in lines]
    values = [value for line in drawn for value in line.values]
    steps = [step for line in drawn for step in line.steps]
    if not values:
        return _svg(
            box,
            title,
            f'<text x="{box.width / 2}" y="{box.height / 2}" class="t" text-anchor="middle">no values yet</text>',
        )
    low, high = limits or _span(values, log)
    across = Scale(min(steps), max(steps), LEFT, box.right)
    up = Scale(low, high, box.bottom, TOP, log)
    parts = [*_grid(box, up, text), *_below(box, across)]
    if mark is not None and low <= mark <= high:
        parts.append(f'<path d="M{LEFT} {up(mark):.1f}H{box.right}" class="m"/>')
    return _svg(box, title, *parts, *(_drawn(line, across, up) for line in drawn))


def bar_plot(
    bars: Mapping[int, int], *, title: str, bad_above: int | None = None, box: Box = NARROW
) -> Markup:
    """Returns a histogram over small whole numbers; bars above `bad_above` are in the colour of what went wrong."""
    if not bars:
        return line_plot((), title=title, box=box)
    last = max(*bars, bad_above or 0, 4)
    up = Scale(0.0, max(bars.values()), box.bottom, TOP)
    wide = (box.right - LEFT) / (last + 1)
    parts = _grid(box, up, lambda value: f"{value:g}")
    for age, count in bars.items():
        x, y = LEFT + age * wide, up(count)
        kind = "b bad" if bad_above is not None and age > bad_above else "b"
        place = (
            f'x="{x + 0.08 * wide:.1f}" y="{y:.1f}" width="{0.84 * wide:.1f}" height="{box.bottom - y:.1f}"'
        )
        parts.append(f'<rect {place} class="{kind}"><title>{age}: {count}</title></rect>')
    every = max(1, math.ceil((last + 1) / 12))
    parts += [
        _text(LEFT + (age + 0.5) * wide, box.height - 8, str(age), "middle")
        for age in range(0, last + 1, every)
    ]
    return _svg(box, title, *parts)


def spark_line(steps: Sequence[float], values: Sequence[float], *, title: str) -> Markup:
    """Returns a line without axes, for a row of a table."""
    if not values:
        return Markup("")
    low, high = _span(values, False)
    line, across, up = Line(steps, values), Scale(min(steps), max(steps), 2, 118), Scale(low, high, 22, 2)
    return Markup(
        f'<svg class="spark" role="img" aria-label="{escape(title)}" viewBox="0 0 120 24">'
    ) + Markup(f"{_drawn(line, across, up)}</svg>")


def _usable(line: Line, log: bool) -> Line:
    kept = [
        (step, value)
        for step, value in zip(line.steps, line.values, strict=True)
        if math.isfinite(value) and (value > 0.0 or not log)
    ]
    return Line([s for s, _ in kept], [v for _, v in kept], line.series, line.faint, line.dots)


def _span(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Returns what the values span, with some room, and never nothing."""
    low, high = min(values), max(values)
    if log:
        room = max((high / low) ** 0.06, 1.05)
        return low / room, high * room
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _grid(box: Box, up: Scale, text: Callable[[float], str]) -> list[str]:
    rows = []
    for value in up.ticks:
        y = up(value)
        rows.append(f'<path d="M{LEFT} {y:.1f}H{box.right}" class="g"/>')
        rows.append(_text(LEFT - 6, y + 3.5, text(value), "end"))
    return rows


def _below(box: Box, across: Scale) -> list[str]:
    if across.low == across.high:
        return [_text(across(across.low), box.height - 8, f"{across.low:g}", "middle")]
    ticks = [tick for tick in across.ticks if tick == int(tick)]
    return [_text(across(tick), box.height - 8, f"{tick:g}", "middle") for tick in ticks]


def _drawn(line: Line, across: Scale, up: Scale) -> str:
    points = [
        (across(step), min(max(up(value), TOP - 8), up.start + 8))
        for step, value in zip(line.steps, line.values, strict=True)
    ]
    if not points:
        return ""
    colour = f"var(--series-{line.series})"
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    kind = "l faint" if line.faint else "l"
    parts = [f'<polyline points="{path}" class="{kind}" stroke="{colour}"/>']
    marked = points if line.dots and len(points) <= 80 else [] if line.faint else points[-1:]
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in marked]
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="t" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(box: Box, title: str, *parts: str) -> Markup:
    start = f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {box.width:g} {box.height:g}">'
    return Markup(start + "".join(parts) + "</svg>")  # texts were escaped where they were put in


def _round_step(step: float) -> float:
    """Returns 1, 2 or 5 times a power of ten, at least `step`."""
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    return next((power * m for m in (1.0, 2.0, 5.0) if power * m >= step * (1 - 1e-9)), 10.0 * power)


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        ticks = [f * 10.0**e for e in range(first, last + 1) for f in factors if low <= f * 10.0**e <= high]
        if len(ticks) >= 2:
            break
    return ticks[:: max(1, math.ceil(len(ticks) / (MAX_TICKS + 1)))]
