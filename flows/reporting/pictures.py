"""Every picture that a report has as a file: which there are depends on what has been run."""

from __future__ import annotations

from dataclasses import dataclass

from flows.reporting.comparison_plot import compared_tables, comparison_png
from flows.reporting.data import ReportData
from flows.reporting.evaluation_plots import compared_baselines, learning_curves_png, speedup_cdf_png
from flows.reporting.formatting import plural
from flows.reporting.head_to_head_plot import head_to_head_png
from flows.reporting.statistics import headline_tasks
from flows.reporting.training_plots import meta_training_png


@dataclass(frozen=True)
class Picture:
    """One PNG: its name without an ending, its bytes, and what it shows."""

    name: str
    png: bytes
    caption: str


def evaluation_pictures(data: ReportData) -> list[Picture]:
    """Returns the pictures of the evaluation: none where there is none, fewer where nothing was compared."""
    evaluation, found = data.evaluation, []
    if evaluation is None:
        return []
    count = f"{plural(len(headline_tasks(evaluation)), 'task')} × {plural(evaluation.num_seeds, 'seed')}"
    if compared_baselines(evaluation):
        caption = f"Share of tasks with at least that speed-up; {count}."
        found.append(Picture("speedup-cdf", speedup_cdf_png(data), caption))
    if compared_tables(evaluation):
        caption = f"Interquartile mean of every optimizer, with 95 % intervals over seeds and tasks; {count}."
        found.append(Picture("comparison", comparison_png(data), caption))
    if evaluation.head_to_head:
        caption = f"How often the candidate ends lower than each of the others, with 95 % intervals; {count}."
        found.append(Picture("head-to-head", head_to_head_png(data), caption))
    if evaluation.tasks:
        found.append(
            Picture("learning-curves", learning_curves_png(data), "Learning curves of every optimizer.")
        )
    return found


def report_pictures(data: ReportData) -> list[Picture]:
    """Returns every picture of a report."""
    found = evaluation_pictures(data)
    if data.phases:
        found.insert(0, Picture("meta-training", meta_training_png(data), "Meta-loss over the phases."))
    return found
