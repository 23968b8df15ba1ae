"""Numbers as text, in one place, so that the page, the terminal and the plots agree."""

from __future__ import annotations

import math

DASH = "–"
NO_BETTER = "no better than the start"
"""A speed-up of 0 with a finite loss."""


def loss_text(value: float | None) -> str:
    """Three significant digits; "diverged" for what is not finite."""
    if value is None:
        return DASH
    if not math.isfinite(value):
        return "diverged"
    return f"{value:#.3g}".rstrip(".").replace("-", "−", 1 if value < 0 else 0)


def times_text(value: float | None, *, at_least: bool = False) -> str:
    """A ratio: 1.34×, 12×, ≥ 10×; in words what has no ratio."""
    if value is None:
        return DASH
    if not math.isfinite(value):
        return "diverged"
    if value <= 0.0:
        return NO_BETTER
    digits = 2 if value < 10.0 else 0
    return ("≥ " if at_least else "") + f"{value:.{digits}f}×"


def seconds_text(seconds: float | None) -> str:
    """A duration in the unit a reader would choose: 412 µs, 1.2 ms, 8.4 s, 3 min 12 s, 2 h 05 min."""
    if seconds is None:
        return DASH
    if seconds == 0.0:
        return "0 s"
    for limit, scale, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * scale:.3g} {unit}"
    if seconds < 60.0:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count_text(value: int) -> str:
    """A count with thin spaces: 1 234 567."""
    return f"{value:,}".replace(",", "\u202f")


def percent_text(fraction: float | None) -> str:
    """A fraction as a percentage without false precision: 17 %, 3.4 %."""
    if fraction is None:
        return DASH
    return f"{fraction * 100:.2g}\u202f%" if abs(fraction) < 0.0995 else f"{fraction * 100:.0f}\u202f%"


def rate_text(rate: float) -> str:
    """A learning rate: 0.0032, 1e-05."""
    return f"{rate:.2g}"


def plural(count: int, noun: str) -> str:
    """ "1 task", "6 tasks"."""
    return f"{count_text(count)} {noun}{'' if count == 1 else 's'}"
