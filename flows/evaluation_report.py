"""From curves to the summary that the gate reads and the report that people read."""

from __future__ import annotations

import numpy as np

from curriculum.curves import CurveBatch
from curriculum.evaluation import (
    CANDIDATE,
    INITIALISATION,
    NORMALIZER,
    EvaluationConfig,
    EvaluationSummary,
    TaskResult,
    summarize,
    summarize_task,
)
from curriculum.phases import PHASES
from flows.evaluation_curves import LEARNED
from flows.reporting import (
    EvaluationReport,
    OptimizerCurve,
    OptimizerInfo,
    SpeedupReport,
    TaskReport,
    TunedRate,
)
from lopt.baselines import BASELINES
from task_generator.evaluation_set import EvaluationTask
from task_generator.known_distributions import get_distribution

Batches = dict[tuple[str, str], CurveBatch]
SPLIT = "train"
_LEARNED_NAMES = (CANDIDATE, INITIALISATION)


def is_held_out(task: EvaluationTask) -> bool:
    """Whether no task distribution that phases use could have drawn the task."""
    used = {phase.distribution for phase in PHASES.values()}
    return not any(get_distribution(name).could_sample(task.config) for name in used)


def build_summary(
    tasks: list[EvaluationTask], batches: Batches, config: EvaluationConfig
) -> EvaluationSummary:
    """Returns final losses and speed-ups of every optimizer on every task."""
    results = []
    for task in tasks:
        learned = batches[task.name, LEARNED].losses[SPLIT]
        results.append(
            summarize_task(
                config,
                task.name,
                held_out=is_held_out(task),
                learned={name: learned[row] for row, name in enumerate(_LEARNED_NAMES)},
                baselines={name: batches[task.name, name] for name in config.baselines},
            )
        )
    return summarize(config, results)


def build_report(
    tasks: list[EvaluationTask], batches: Batches, summary: EvaluationSummary, *, set_name: str, label: str
) -> EvaluationReport:
    """Returns what a report shows of the evaluation.

    Args:
      tasks: In the order of `summary.tasks`.
      batches: The curves by (task name, job name).
      summary: Of the same curves.
      set_name: What the tasks are called together.
      label: What the learned optimizer is called.
    """
    config = summary.config
    return EvaluationReport(
        set_name=set_name,
        horizon=config.horizon,
        num_seeds=config.num_seeds,
        max_speedup=float(config.normalizer_factor),
        optimizers=(
            OptimizerInfo(name=CANDIDATE, label=label, role="candidate"),
            OptimizerInfo(name=INITIALISATION, label=f"{label} before training", role="initialisation"),
            *(
                OptimizerInfo(name=name, label=BASELINES[name].label, role="baseline")
                for name in config.baselines
            ),
        ),
        tasks=tuple(
            _task_report(task, result, batches, config)
            for task, result in zip(tasks, summary.tasks, strict=True)
        ),
    )


def _task_report(
    task: EvaluationTask, result: TaskResult, batches: Batches, config: EvaluationConfig
) -> TaskReport:
    learned = batches[task.name, LEARNED]
    curves = [_curve(name, learned, row, config) for row, name in enumerate(_LEARNED_NAMES)]
    for name in config.baselines:
        rate = result.result(name).learning_rate
        assert rate is not None  # baselines have one
        rates = config.learning_rates
        tuned = TunedRate(learning_rate=rate, num_tried=len(rates), lowest=min(rates), highest=max(rates))
        curves.append(_curve(name, batches[task.name, name], rates.index(rate), config, tuned))
    speedups = [
        SpeedupReport(optimizer=entry.optimizer, baseline=NORMALIZER, per_seed=entry.speedups)
        for entry in result.results
        if entry.optimizer != NORMALIZER
    ]
    return TaskReport(
        name=task.name,
        label=task.config.label,
        held_out=result.held_out,
        curves=tuple(curves),
        speedups=tuple(speedups),
    )


def _curve(
    name: str, batch: CurveBatch, row: int, config: EvaluationConfig, tuned: TunedRate | None = None
) -> OptimizerCurve:
    """Returns one optimizer's curve up to the horizon."""
    point = config.horizon // config.eval_every
    losses = np.asarray(batch.losses[SPLIT][row, :, : point + 1], np.float64)
    final = np.where(np.isfinite(losses[:, -1]), losses[:, -1], np.nan)
    return OptimizerCurve(
        optimizer=name,
        steps=tuple(int(step) for step in batch.step[: point + 1]),
        mean=tuple(losses.mean(axis=0).tolist()),
        low=tuple(losses.min(axis=0).tolist()),
        high=tuple(losses.max(axis=0).tolist()),
        final_losses=tuple(final.tolist()),
        seconds_per_step=batch.seconds_per_step,
        tuned=tuned,
    )
