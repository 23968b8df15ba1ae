"""The report as one HTML page that asks nothing of any other host: styles and plots are inside it.

The page has no script. A content security policy forbids every request, so that a mistake here (or in a label
that someone else wrote) would show as a missing picture, not as a connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flows.reporting.comparison_plot import compared_tables, comparison_height, draw_comparison
from flows.reporting.data import EvaluationReport, PhaseReport, ReportData, StageReport
from flows.reporting.evaluation_plots import compared_baselines, draw_learning_curves, draw_speedup_cdf
from flows.reporting.formatting import count_text, percent_text, plural, seconds_text, times_text
from flows.reporting.head_to_head_plot import draw_head_to_head
from flows.reporting.runtime_plots import draw_accepted, draw_runtime_model, families_figure
from flows.reporting.statistics import headline_tasks
from flows.reporting.table_views import mean_tiles, table_views, tables_lead
from flows.reporting.themes import THEMED, Stroke, new_figure, strokes, to_svg
from flows.reporting.track_plots import draw_tracks, track_sentence
from flows.reporting.training_plots import add_legend, add_legend_below, draw_phase
from flows.reporting.views import (
    headline_parts,
    headline_totals,
    phase_facts,
    phase_sentence,
    task_groups,
    worst_rows,
)

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Plot:
    """One picture with its heading."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class LegendEntry:
    """One line of the legend that the learning curves share."""

    label: str
    series: int
    width: float
    dashes: str


def render_html(data: ReportData) -> str:
    """Returns the whole report as a self-contained page, for light and dark, wide and narrow screens."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    helpers = {"count": count_text, "percent": percent_text, "plural": plural, "duration": seconds_text}
    environment.filters.update(helpers, times=times_text)
    page = environment.get_template("report.html.j2").render(
        data=data,
        headline=headline_parts(data),
        totals=headline_totals(data),
        mean_tiles=mean_tiles(data.evaluation) if data.evaluation else [],
        num_headline_tasks=len(headline_tasks(data.evaluation)) if data.evaluation else 0,
        groups=task_groups(data),
        worst=worst_rows(data),
        curves=_curve_plots(data.evaluation),
        legend=_legend(data.evaluation),
        cdfs=_cdf_plots(data.evaluation),
        comparisons=_comparison_plots(data.evaluation),
        head_to_head=_head_to_head_plot(data.evaluation),
        tables=table_views(data.evaluation) if data.evaluation else [],
        tables_lead=tables_lead(data.evaluation) if data.evaluation and data.evaluation.baselines else "",
        phases=[(phase, _phase_plot(phase, n), phase_facts(phase)) for n, phase in enumerate(data.phases)],
        phase_sentence=phase_sentence,
        tracks=_track_plots(data),
        runtime_plot=_runtime_plot(data),
        families_plot=_families_plot(data),
        accepted_plot=_accepted_plot(data),
        stages=_stage_shares(data.stages),
        total_seconds=sum(stage.seconds for stage in data.stages),
    )
    return page


def _curve_plots(evaluation: EvaluationReport | None) -> dict[str, Plot]:
    plots = {}
    for number, task in enumerate(evaluation.tasks if evaluation else ()):
        assert evaluation is not None
        figure, (axes,) = new_figure(THEMED, 3.5, 2.4)
        draw_learning_curves(axes, evaluation, task, THEMED)
        svg = to_svg(figure, name=f"task{number}", title=f"Learning curves on {task.name}")
        plots[task.name] = Plot(task.name, svg)
    return plots


def _legend(evaluation: EvaluationReport | None) -> list[LegendEntry]:
    if evaluation is None:
        return []
    stroke_of = strokes(evaluation.optimizers)
    return [
        LegendEntry(info.label, (stroke := stroke_of[info.name]).number, stroke.width, _svg_dashes(stroke))
        for info in evaluation.optimizers
    ]


def _svg_dashes(stroke: Stroke) -> str:
    if isinstance(stroke.dashes, str):
        return "none"
    return " ".join(f"{length * stroke.width:g}" for length in stroke.dashes[1])


def _cdf_plots(evaluation: EvaluationReport | None) -> list[Plot]:
    plots = []
    for number, info in enumerate(compared_baselines(evaluation) if evaluation else ()):
        assert evaluation is not None
        figure, (axes,) = new_figure(THEMED, 4.8, 4.0)
        draw_speedup_cdf(axes, evaluation, info.name, THEMED)
        add_legend_below(axes, THEMED)
        title = f"Speed-up over {info.label}"
        plots.append(Plot(title, to_svg(figure, name=f"cdf{number}", title=title)))
    return plots


def _comparison_plots(evaluation: EvaluationReport | None) -> list[Plot]:
    plots = []
    for number, table in enumerate(compared_tables(evaluation) if evaluation else ()):
        assert evaluation is not None
        figure, (axes,) = new_figure(THEMED, 5.4, comparison_height(len(table.rows)))
        draw_comparison(axes, evaluation, table, THEMED)
        svg = to_svg(figure, name=f"compared{number}", title=f"{table.title}: interquartile means")
        plots.append(Plot(table.title, svg))
    return plots


def _head_to_head_plot(evaluation: EvaluationReport | None) -> Plot | None:
    if evaluation is None or not evaluation.head_to_head:
        return None
    figure, (axes,) = new_figure(THEMED, 5.4, comparison_height(len(evaluation.head_to_head)))
    draw_head_to_head(axes, evaluation, THEMED)
    title = f"Head to head: how often {evaluation.candidate.label} ends lower"
    return Plot(title, to_svg(figure, name="headtohead", title=title))


def _phase_plot(phase: PhaseReport, number: int) -> Plot:
    figure, (axes,) = new_figure(THEMED, 4.8, 3.0)
    draw_phase(axes, phase, THEMED)
    add_legend(axes, THEMED)
    title = phase.title or phase.name
    return Plot(title, to_svg(figure, name=f"phase{number}", title=f"Meta-loss during {title}"))


def _track_plots(data: ReportData) -> list[tuple[Plot, str]]:
    plots = []
    for number, track in enumerate(track for track in data.tracks if track.points):
        figure, (axes,) = new_figure(THEMED, 6.0, 3.4)
        draw_tracks(axes, track, THEMED)
        svg = to_svg(figure, name=f"track{number}", title=f"Percentile tracks of {track.run}")
        plots.append((Plot(track.run, svg), track_sentence(track)))
    return plots


def _runtime_plot(data: ReportData) -> Plot | None:
    if data.runtime_model is None or not data.runtime_model.points:
        return None
    figure, (axes,) = new_figure(THEMED, 4.4, 3.8)
    draw_runtime_model(axes, data.runtime_model, THEMED)
    add_legend(axes, THEMED)
    title = "Predicted against measured time of one step"
    return Plot(title, to_svg(figure, name="runtime", title=title))


def _families_plot(data: ReportData) -> Plot | None:
    if data.runtime_model is None or not data.runtime_model.points:
        return None
    title = "Each family, with 80 % intervals"
    figure = families_figure(data.runtime_model, THEMED)
    return Plot(title, to_svg(figure, name="families", title=title))


def _accepted_plot(data: ReportData) -> Plot | None:
    if data.runtime_model is None or not data.runtime_model.accepted:
        return None
    families = {name for accepted in data.runtime_model.accepted for name in accepted.families}
    figure, (axes,) = new_figure(THEMED, 6.0, 1.6 + 0.32 * len(families))
    draw_accepted(axes, data.runtime_model, THEMED)
    title = "What a time budget accepts"
    return Plot(title, to_svg(figure, name="accepted", title=title))


def _stage_shares(stages: tuple[StageReport, ...]) -> list[tuple[StageReport, float]]:
    total = sum(stage.seconds for stage in stages) or 1.0
    return [(stage, 100.0 * stage.seconds / total) for stage in stages]
