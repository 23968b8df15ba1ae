"""Plots of the evaluation: the speed-up distribution and the learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from flows.reporting.data import EvaluationReport, OptimizerCurve, OptimizerInfo, ReportData, TaskReport
from flows.reporting.formatting import count_text, plural
from flows.reporting.statistics import headline_tasks, task_speedup
from flows.reporting.themes import LIGHT, Theme, add_heading, log_axis, new_figure, strokes, to_png
from flows.reporting.training_plots import add_legend_below

_FLOOR = 0.05
"""Where a task with a speed-up of 0 is drawn on the logarithmic axis."""


def draw_speedup_cdf(axes: Axes, evaluation: EvaluationReport, baseline: str, theme: Theme) -> None:
    """Draws, as VeLO's Figure 1 does, on what share of tasks each optimizer is at least that much faster.

    Each held-out task enters with the speed-up of its mean loss; the dots are the tasks. A task at the largest
    measurable speed-up is drawn as a triangle: the baseline never got there.
    """
    stroke_of, shown = strokes(evaluation.optimizers), []
    for info in evaluation.optimizers:
        found = [task_speedup(evaluation, task, info.name, baseline) for task in headline_tasks(evaluation)]
        values = sorted((max(s.value, _FLOOR) for s in found if s is not None), reverse=True)
        if not values or info.name == baseline:
            continue
        shown += values
        stroke = stroke_of[info.name]
        colour = theme.series[stroke.number]
        shares = [0.0] + [(rank + 1) / len(values) for rank in range(len(values))]
        axes.step(
            shares, [values[0], *values], where="pre", color=colour, linewidth=stroke.width,
            linestyle=stroke.dashes, label=f"{info.label} (n = {len(values)} tasks)",
        )  # fmt: skip
        middles = [(rank + 0.5) / len(values) for rank in range(len(values))]
        for is_capped, marker in ((False, "o"), (True, "^")):
            chosen = [
                (x, v)
                for x, v in zip(middles, values, strict=True)
                if (v >= evaluation.max_speedup) == is_capped
            ]
            axes.scatter(
                [x for x, _ in chosen], [v for _, v in chosen], s=22, marker=marker, color=colour,
                edgecolor=theme.surface, linewidth=0.6, zorder=3, clip_on=False,
            )  # fmt: skip
    low, high = min([0.8, *shown]) / 1.2, max([1.25, *shown]) * 1.2
    axes.set_yscale("log")
    log_axis(axes.yaxis, low, high, lambda value: f"{value:g}×")
    axes.set_ylim(low, high)
    axes.set_xlim(0.0, 1.0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f}%")
    axes.axhline(1.0, color=theme.ink, linewidth=1.0)
    axes.set_xlabel("share of tasks with at least that speed-up")
    axes.set_ylabel("speed-up in steps")


def draw_learning_curves(axes: Axes, evaluation: EvaluationReport, task: TaskReport, theme: Theme) -> None:
    """Draws every optimizer on one task: mean over seeds, shaded from the best to the worst seed.

    The scale is logarithmic where all means are positive. A run that leaves the top of the plot has a loss
    above one and a half times its start; a cross marks the last finite mean of one that diverged, at the top if it
    is above that.
    """
    stroke_of = strokes(evaluation.optimizers)
    labels = {info.name: info.label for info in evaluation.optimizers}
    order = [info.name for info in reversed(evaluation.optimizers)]  # the candidate is drawn last, on top
    for name in order:
        curve = task.curve(name)
        if curve is None:
            continue
        stroke = stroke_of[name]
        colour = theme.series[stroke.number]
        axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(
            curve.steps, curve.mean, color=colour, linewidth=stroke.width * 0.85, linestyle=stroke.dashes,
            label=labels[name],
        )  # fmt: skip
    means = [v for curve in task.curves for v in curve.mean if math.isfinite(v)]
    starts = [curve.mean[0] for curve in task.curves if curve.mean and math.isfinite(curve.mean[0])]
    ceiling = max(starts, default=1.0) * 1.5
    shown = [v for v in means if v <= ceiling] or [1.0]
    if min(shown) > 0.0:
        axes.set_yscale("log")
        low, high = min(shown) / 1.25, max(shown) * 1.15
        log_axis(axes.yaxis, low, high, lambda value: f"{value:g}")
    else:
        margin = 0.05 * (max(shown) - min(shown) or 1.0)
        low, high = min(shown) - margin, max(shown) + margin
    axes.set_ylim(low, high)
    for curve in task.curves:
        _mark_divergence(axes, curve, theme.series[stroke_of[curve.optimizer].number], top=high)
    axes.set_xlim(0, _last_step(evaluation, [task]))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: count_text(int(value)))
    axes.set_xlabel("inner step")
    axes.set_ylabel(evaluation.loss_label)
    if _last_step(evaluation, [task]) > evaluation.horizon:
        axes.axvline(evaluation.horizon, color=theme.muted, linewidth=0.9, linestyle=(0, (2, 2)))


def _mark_divergence(axes: Axes, curve: OptimizerCurve, colour: str, *, top: float) -> None:
    finite = [math.isfinite(value) for value in curve.mean]
    if any(finite) and not all(finite):
        last = finite.index(False) - 1
        # Not clipped at the edge, so never far outside: the layout makes room for it.
        axes.plot(
            curve.steps[last], min(curve.mean[last], top), "X", color=colour, markersize=8, clip_on=False
        )


def _last_step(evaluation: EvaluationReport, tasks: Sequence[TaskReport]) -> int:
    # Baselines may run on to measure speed-ups; beyond three horizons the candidate would be a sliver.
    longest = max((curve.steps[-1] for task in tasks for curve in task.curves if curve.steps), default=1)
    return min(longest, 3 * evaluation.horizon)


def compared_baselines(evaluation: EvaluationReport) -> tuple[OptimizerInfo, ...]:
    """Returns the baselines over which the candidate's speed-up was measured on at least one task."""
    candidate = evaluation.candidate.name
    return tuple(
        info
        for info in evaluation.baselines
        if any(task.speedup(candidate, info.name) is not None for task in headline_tasks(evaluation))
    )


def _evaluation(data: ReportData) -> EvaluationReport:
    if data.evaluation is None:
        raise ValueError("`data.evaluation` must not be None: run `keirin evaluate` first.")
    return data.evaluation


def speedup_cdf_png(data: ReportData) -> bytes:
    """Returns the speed-up distributions as PNG bytes, one panel per baseline.

    Raises:
      ValueError: If `data` has no evaluation, or one without speed-ups.
    """
    evaluation = _evaluation(data)
    baselines = compared_baselines(evaluation)
    if not baselines:
        raise ValueError(f"`data.evaluation` must have speed-ups of {evaluation.candidate.name!r}, got none.")
    figure, panels = new_figure(LIGHT, 4.6 * len(baselines), 4.2, columns=len(baselines))
    for axes, info in zip(panels, baselines, strict=True):
        draw_speedup_cdf(axes, evaluation, info.name, LIGHT)
        add_heading(axes, LIGHT, f"Speed-up over {info.label} · {evaluation.num_seeds} seeds")
        add_legend_below(axes, LIGHT)
    return to_png(figure)


def learning_curves_png(data: ReportData) -> bytes:
    """Returns the learning curves as PNG bytes, one panel per task.

    Raises:
      ValueError: If `data` has no evaluation.
    """
    evaluation = _evaluation(data)
    columns = min(3, len(evaluation.tasks))
    rows = math.ceil(len(evaluation.tasks) / columns)
    figure, panels = new_figure(LIGHT, 3.9 * columns, 2.7 * rows + 0.4, rows=rows, columns=columns)
    candidate, baselines = evaluation.candidate.name, compared_baselines(evaluation)
    for axes, task in zip(panels, evaluation.tasks, strict=False):
        draw_learning_curves(axes, evaluation, task, LIGHT)
        add_heading(axes, LIGHT, task.name)
        summary = baselines and task_speedup(evaluation, task, candidate, baselines[0].name)
        if summary:
            colour = LIGHT.good if summary.verdict == "win" else LIGHT.bad
            text = summary.text.removesuffix(" than the start")  # beside the task's name there is no room
            if summary.num_diverged:
                text += f" ({summary.num_diverged} of {plural(summary.num_seeds, 'seed')})"
            axes.set_title(text, loc="right", color=colour, fontsize=9.5, fontweight="bold")
    for axes in panels[len(evaluation.tasks) :]:
        axes.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside upper left", ncols=len(labels), fontsize=8.5, frameon=False
    )
    return to_png(figure)
