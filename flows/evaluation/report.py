"""From curves to the summary that the gate reads and the report that people read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curriculum.evaluation.curves import CurveBatch
from curriculum.evaluation.summary import (
    CANDIDATE,
    INITIALISATION,
    EvaluationConfig,
    EvaluationSummary,
    OptimizerResult,
    TaskResult,
    summarize,
    summarize_task,
)
from curriculum.training_domain import TrainingDomain, is_familiar, is_held_out
from flows.evaluation.curves import LEARNED, Curves
from flows.evaluation.head_to_head import head_to_head_rows
from flows.evaluation.losses import loss_rows
from flows.evaluation.tables import build_tables, headline_indices, trial_losses, twice_rows
from flows.reporting import (
    EvaluationReport,
    OptimizerCurve,
    OptimizerInfo,
    SpeedupReport,
    TaskReport,
    TunedSetting,
    untrained_name,
)
from lopt.baselines import BASELINES
from task_generator.evaluation_set import EvaluationTask

Batches = dict[tuple[str, str], CurveBatch]
SPLIT = "train"
_LEARNED_NAMES = (CANDIDATE, INITIALISATION)
_NORMALIZER_LABELS = {"adam": BASELINES["adam"].label, "extended": "the best of four tuned optimizers"}
_DRAWN = ("adam", "adamw_cosine", "nadamw", "opt_list", "schedule_free_adamw", "muon", "prodigy")
"""Whose curves are drawn, the first four of those evaluated: more lines than that nobody can tell apart. The tables
have all."""
_MAX_DRAWN = 4


def build_summary(
    tasks: Sequence[EvaluationTask],
    batches: Batches,
    config: EvaluationConfig,
    trained_on: tuple[TrainingDomain, ...] | None,
) -> EvaluationSummary:
    """Returns final losses and speed-ups of every optimizer on every task.

    Args:
      tasks: Which.
      batches: The curves by (task name, optimizer).
      config: How they were made.
      trained_on: What the candidate's phases may have drawn: decides which tasks are held out.
    """
    results = []
    for task in tasks:
        learned = batches[task.name, LEARNED].losses[SPLIT]
        results.append(
            summarize_task(
                config,
                task,
                held_out=is_held_out(task.config, trained_on),
                learned={name: learned[row] for row, name in enumerate(_LEARNED_NAMES)},
                baselines={
                    trials.baseline: batches[task.name, trials.baseline] for trials in config.all_trials
                },
            )
        )
    return summarize(config, results)


def build_report(
    tasks: Sequence[EvaluationTask],
    curves: Curves,
    summary: EvaluationSummary,
    *,
    trained_on: tuple[TrainingDomain, ...] | None,
    set_name: str,
    label: str,
) -> EvaluationReport:
    """Returns what a report shows of the evaluation.

    Args:
      tasks: In the order of `summary.tasks`.
      curves: Every curve.
      summary: Of the same curves.
      trained_on: What the candidate's phases may have drawn: decides which families are familiar.
      set_name: What the tasks are called together.
      label: What the learned optimizer is called.
    """
    config, batches = summary.config, curves.batches
    drawn = _drawn(config)
    optimizers = trial_losses(config, [tasks[number] for number in headline_indices(summary)], batches)
    baselines = [OptimizerInfo(name=n, label=BASELINES[n].label, role="baseline") for n in drawn]
    if config.normalizer not in drawn:
        normalizer = _NORMALIZER_LABELS[config.normalizer]
        baselines.insert(0, OptimizerInfo(name=config.normalizer, label=normalizer, role="baseline"))
    return EvaluationReport(
        set_name=set_name,
        horizon=config.horizon,
        num_seeds=config.num_seeds,
        max_speedup=float(config.normalizer_factor),
        optimizers=(
            OptimizerInfo(name=CANDIDATE, label=label, role="candidate"),
            OptimizerInfo(name=INITIALISATION, label=untrained_name(label), role="initialisation"),
            *baselines,
        ),
        tasks=tuple(
            _task_report(task, result, batches, config, is_familiar(task.config, trained_on))
            for task, result in zip(tasks, summary.tasks, strict=True)
        ),
        tables=build_tables(summary, optimizers, label),
        head_to_head=head_to_head_rows(summary, optimizers, label),
        losses=loss_rows(summary, tasks, batches, label),
        twice_as_fast=twice_rows(summary, label),
        remarks=(*_remarks(summary), *_imported(curves)),
    )


def _drawn(config: EvaluationConfig) -> list[str]:
    evaluated = [trials.baseline for trials in config.trials]
    first = [name for name in _DRAWN if name in evaluated]
    return (first + [name for name in evaluated if name not in first])[:_MAX_DRAWN]


def _remarks(summary: EvaluationSummary) -> tuple[str, ...]:
    """Returns what has to be known before a number is believed."""
    trained = [task.task for task in summary.tasks if task.held_out is False]
    unknown = [task.task for task in summary.tasks if task.held_out is None]
    remarks = []
    if trained:
        remarks.append(
            f"{len(trained)} of {len(summary.tasks)} tasks could have been sampled in training, and say nothing "
            f"about others: {', '.join(trained)}."
        )
    if unknown:
        remarks.append(
            f"Of {len(unknown)} of {len(summary.tasks)} tasks it is not known whether they could have been sampled "
            "in training: the weights do not say what they were trained on, or a distribution has changed since."
        )
    return tuple(remarks)


def _imported(curves: Curves) -> tuple[str, ...]:
    """Returns what was not computed here, and so is as good as whoever computed it."""
    if not curves.imported:
        return ()
    files = ", ".join(f"{count} with {name}" for name, count in sorted(curves.imported.items()))
    return (f"Some of the curves were imported, not computed here: {files}.",)


def _task_report(
    task: EvaluationTask,
    result: TaskResult,
    batches: Batches,
    config: EvaluationConfig,
    familiar: bool | None,
) -> TaskReport:
    learned = batches[task.name, LEARNED]
    curves = [_curve(result.result(name), learned, row, config) for row, name in enumerate(_LEARNED_NAMES)]
    drawn = _drawn(config)
    for name in drawn:
        chosen = result.result(name)
        curves.append(_curve(chosen, batches[task.name, name], chosen.trial, config))
    speedups = [
        SpeedupReport(
            optimizer=entry.optimizer,
            baseline=config.normalizer,
            of_mean=entry.speedup,
            per_seed=entry.seed_speedups,
            redrawn=entry.redrawn_speedups,
            num_diverged=int(np.sum(~np.isfinite(entry.final_losses))),
        )
        for entry in result.results
        if entry.optimizer in (*_LEARNED_NAMES, *drawn) and entry.optimizer != config.normalizer
    ]
    return TaskReport(
        name=task.name,
        label=task.config.label,
        held_out=result.held_out,
        family=result.family,
        familiar=familiar,
        curves=tuple(curves),
        speedups=tuple(speedups),
    )


def _tuned(chosen: OptimizerResult) -> TunedSetting | None:
    if not chosen.setting:
        return None
    is_grid = BASELINES[chosen.optimizer].search_space.kind == "grid"
    at_edge = is_grid and chosen.trial in (0, chosen.num_trials - 1)
    return TunedSetting(setting=chosen.setting, num_tried=chosen.num_trials, is_at_edge=at_edge)


def _curve(result: OptimizerResult, batch: CurveBatch, row: int, config: EvaluationConfig) -> OptimizerCurve:
    """Returns one optimizer's curve up to the horizon."""
    point = config.last_point
    losses = np.asarray(batch.losses[SPLIT][row, :, : point + 1], np.float64)
    final = np.where(np.isfinite(losses[:, -1]), losses[:, -1], np.nan)
    return OptimizerCurve(
        optimizer=result.optimizer,
        steps=tuple(int(step) for step in batch.step[: point + 1]),
        mean=tuple(losses.mean(axis=0).tolist()),
        low=tuple(losses.min(axis=0).tolist()),
        high=tuple(losses.max(axis=0).tolist()),
        final_losses=tuple(final.tolist()),
        seconds_per_step=result.seconds_alone,
        tuned=_tuned(result),
    )
