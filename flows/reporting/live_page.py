"""The live page of a running phase: self-contained, no script, cheap enough to be written every few seconds.

The browser loads it again by itself while the phase runs. Like the report it asks nothing of any host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from flows.reporting.formatting import DASH, count_text, loss_text, percent_text, plural, seconds_text
from flows.reporting.live_data import LiveReport, LiveTask, Recent
from flows.reporting.series import Series
from flows.reporting.small_svg import NARROW, WIDE, Box, Line, bar_plot, line_plot, spark_line

MAX_TASKS, MAX_FAMILIES, MAX_EVENTS = 60, 24, 40


@dataclass(frozen=True)
class Panel:
    """One small plot: what it shows, its newest value, and how to read it."""

    title: str
    value: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True)
class TaskRow:
    """One static configuration in the table."""

    number: str
    label: str
    family: str
    first: str
    now: str
    spark: Markup


def render_live(report: LiveReport) -> str:
    """Returns the page."""
    return _template().render(
        report=report,
        progress=100.0 * report.outer_step / max(report.outer_steps, 1),
        tiles=_tiles(report),
        groups={
            "Losses": _losses(report),
            "The meta-gradient": _gradient(report),
            "The work": _work(report),
            "Families": _families(report),
        },
        tasks=[_row(key, task) for key, task in sorted(report.tasks.items())[:MAX_TASKS]],
        num_more_tasks=max(0, len(report.tasks) - MAX_TASKS),
        num_more_families=max(0, len(report.families) - MAX_FAMILIES),
        events=report.events[: -MAX_EVENTS - 1 : -1],
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=count_text, plural=plural, duration=seconds_text)
    return environment.get_template("live.html.j2")


def _tiles(report: LiveReport) -> list[tuple[str, str, str]]:
    """Returns what, value and a remark of the numbers at the top."""
    validation, recent = report.curve("validation_loss").values, report.recent
    best = f"{loss_text(validation[0])} → {loss_text(min(validation))} at best" if validation else "none yet"
    over = f"over {plural(recent.outer_steps, 'outer step')}"
    left = f"about {seconds_text(report.seconds_left)} to go" if report.seconds_left else "so far"
    rate = report.curve("inner_steps_per_second").last
    return [
        ("Validation loss", loss_text(validation[-1] if validation else None), best),
        ("Time", seconds_text(report.seconds), left),
        (
            "Inner steps/s",
            DASH if rate is None else count_text(round(rate)),
            f"{_short(report.inner_steps)} in all",
        ),
        ("Compile share", _share(_compile_share(recent)), over),
        (
            "Dropped",
            _share(_drop_rate(recent)),
            f"{recent.num_stale} stale, {recent.num_not_finite} not finite, {over}",
        ),
    ]


def _losses(report: LiveReport) -> list[Panel]:
    loss, validation = report.curve("meta_loss"), report.curve("validation_loss")
    return [
        _panel(
            "Validation loss",
            validation,
            "The averaged θ on fixed tasks and data; dashed: at the phase's start.",
            lines=[Line(validation.steps, validation.values, 1, dots=True)],
            mark=validation.values[0] if validation.values else None,
            box=WIDE,
        ),
        _panel(
            "Meta-loss",
            loss,
            "At the perturbed θ, on the tasks of the step; the line is a trend.",
            box=WIDE,
        ),
    ]


def _gradient(report: LiveReport) -> list[Panel]:
    return [
        _panel("Norm", report.curve("gradient_norm"), "Before clipping.", log=True, text=_short),
        _panel(
            "Unit variance",
            report.curve("gradient_variance"),
            "Of one unit's gradient, about the batch's mean.",
            log=True,
            text=_short,
        ),
        _panel(
            "Noise share",
            report.curve("gradient_noise_share"),
            "0: the batch agrees. 1: the step is a random one; larger batches help.",
            limits=(0.0, 1.2),
            text=_plain,
            mark=1.0,
        ),
        _panel(
            "Cosine",
            report.curve("gradient_cosine"),
            "With the step before. About 0: noise; below: overshooting.",
            limits=(-1.0, 1.0),
            text=_plain,
            mark=0.0,
        ),
    ]


def _work(report: LiveReport) -> list[Panel]:
    recent = report.recent
    staleness = bar_plot(recent.staleness, title="Staleness", bad_above=recent.max_staleness)
    limit = "" if recent.max_staleness is None else f"; above {recent.max_staleness} dropped"
    rate, share = report.curve("inner_steps_per_second"), (0.0, 1.0)
    return [
        _panel("Inner steps/s", rate, "All workers together, over half a minute.", text=_short),
        _panel(
            "Compile share",
            report.curve("compile_share"),
            "Of the workers' time.",
            text=_share,
            limits=share,
        ),
        _panel(
            "Drop rate",
            report.curve("drop_rate"),
            "Units that came too late, or not finite.",
            text=_share,
            limits=share,
        ),
        Panel(
            "Staleness",
            plural(recent.num_units, "unit"),
            staleness,
            f"Outer steps since the unit's θ, over the latest {recent.outer_steps}{limit}.",
        ),
    ]


def _families(report: LiveReport) -> list[Panel]:
    families = sorted(report.families.items())[:MAX_FAMILIES]
    return [
        _panel(name, curve, "", lines=_with_trend(curve, number % 6))
        for number, (name, curve) in enumerate(families)
    ]


def _with_trend(curve: Series, series: int) -> list[Line]:
    return [Line(curve.steps, curve.values, series, faint=True), Line(curve.steps, curve.smooth(), series)]


def _panel(
    title: str,
    curve: Series,
    note: str,
    *,
    lines: list[Line] | None = None,
    log: bool = False,
    limits: tuple[float, float] | None = None,
    mark: float | None = None,
    text: Callable[[float], str] = loss_text,
    box: Box = NARROW,
) -> Panel:
    """Returns a plot of the curve with its trend, or of other lines; `text` writes values and ticks."""
    drawn = lines or _with_trend(curve, 0)
    svg = line_plot(drawn, title=title, log=log, limits=limits, mark=mark, text=text, box=box)
    return Panel(title, DASH if curve.last is None else text(curve.last), svg, note)


def _row(key: str, task: LiveTask) -> TaskRow:
    curve = task.curve
    spark = spark_line(curve.steps, curve.values, title=f"Meta-loss on {task.label}")
    first = loss_text(curve.values[0] if curve.values else None)
    return TaskRow(key.split(" ")[0], task.label, task.family, first, loss_text(curve.last), spark)


def _compile_share(recent: Recent) -> float | None:
    seconds = recent.compile_seconds + recent.run_seconds
    return recent.compile_seconds / seconds if seconds else None


def _drop_rate(recent: Recent) -> float | None:
    return (recent.num_stale + recent.num_not_finite) / recent.num_units if recent.num_units else None


def _share(fraction: float | None) -> str:
    """Returns a percentage; what rounds to nothing is 0."""
    return percent_text(0.0 if fraction is not None and 0.0 < fraction < 5e-4 else fraction)


def _plain(value: float) -> str:
    return f"{round(value, 2):g}".replace("-", "−")


def _short(value: float) -> str:
    """Returns a large count in three digits: 950, 12.3 k, 4.56 M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}\u202f{unit}"
    return f"{value:.3g}"
