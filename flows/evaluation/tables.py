"""The tables of an evaluation: every optimizer over the tasks that the headline speaks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from curriculum.evaluation.baseline_budgets import setting_text
from curriculum.evaluation.comparison import (
    Row,
    TrialLosses,
    best_of_all,
    best_of_rows,
    make_row,
    single_trial_rows,
)
from curriculum.evaluation.curves import CurveBatch
from curriculum.evaluation.summary import (
    CANDIDATE,
    INITIALISATION,
    EvaluationConfig,
    EvaluationSummary,
    task_normalizer,
)
from flows.reporting import ComparisonTable, TwiceRow, clock_name, untrained_name
from lopt.baselines import SHAMPOOS
from task_generator.evaluation_set import EvaluationTask

SINGLE = "One training per task, the same setting for all (VeLO, Tables 1 and 3)."
BEST_OF = (
    "As many trainings per task as the second column says, of which the one with the lowest loss counts "
    "(VeLO, Tables 2 and 4). Choosing by the very loss that is reported flatters whoever has many trials."
)
ALL_BASELINES = "best of all baselines"

CLOCK = (
    "Steps weighed with what they cost: one training alone on a core, the learned optimizer and Adam in turns in "
    "one process, the fastest of six rounds of 100 steps. The largest speed-up that can be seen is weighed with it."
)


def headline_indices(summary: EvaluationSummary) -> list[int]:
    """Returns which tasks the headline speaks of: those known to be held out, or all where none is."""
    held_out = [number for number, task in enumerate(summary.tasks) if task.held_out]
    return held_out or list(range(len(summary.tasks)))


def candidate_row(summary: EvaluationSummary, label: str) -> Row:
    """Returns the candidate's row."""
    return _learned_row(summary, CANDIDATE, label)


def build_tables(
    summary: EvaluationSummary,
    optimizers: Sequence[TrialLosses],
    label: str,
) -> tuple[ComparisonTable, ...]:
    """Returns the tables of single trainings and of the best of several.

    Args:
      summary: Of the evaluation.
      optimizers: The baselines on the tasks of its headline.
      label: What the candidate is called.
    """
    learned = [
        _learned_row(summary, CANDIDATE, label),
        _learned_row(summary, INITIALISATION, untrained_name(label)),
    ]
    singles = [row for optimizer in optimizers for row in single_trial_rows(optimizer)]
    by_clock = _clock_rows(summary, label)
    best = best_of_rows([optimizer for optimizer in optimizers if optimizer.num_trials > 1])
    return (
        ComparisonTable(title="One training per task", note=SINGLE, rows=(*learned, *_sorted(singles))),
        ComparisonTable(
            title="The best of several trainings per task",
            note=BEST_OF,
            rows=(learned[0], *_sorted([*best, *_aggregates(optimizers)])),
        ),
        *([ComparisonTable(title="By the clock", note=CLOCK, rows=by_clock)] if by_clock else []),
    )


def twice_rows(summary: EvaluationSummary, label: str) -> tuple[TwiceRow, ...]:
    """Returns on how many tasks the candidate, and its initialisation, ended lower than every baseline that had
    twice the steps; nothing where there was no such baseline."""
    tasks = [summary.tasks[number] for number in headline_indices(summary)]
    found = []
    for optimizer, name in ((CANDIDATE, label), (INITIALISATION, untrained_name(label))):
        answers = [task.result(optimizer).is_twice_as_fast for task in tasks]
        if None not in answers:
            found.append(TwiceRow(name=name, num_twice=answers.count(True), num_tasks=len(answers)))
    return tuple(found)


def trial_losses(
    config: EvaluationConfig,
    tasks: Sequence[EvaluationTask],
    batches: Mapping[tuple[str, str], CurveBatch],
) -> list[TrialLosses]:
    """Returns every trial of every baseline on every task, with each task's normaliser."""
    curves = {
        task.name: {trials.baseline: batches[task.name, trials.baseline] for trials in config.trials}
        for task in tasks
    }
    normalizers = tuple(task_normalizer(config, curves[task.name]) for task in tasks)
    found = []
    for trials in config.trials:
        losses = np.stack(
            [curves[task.name][trials.baseline].losses["train"][:, :, config.last_point] for task in tasks]
        )
        settings = tuple(setting_text(trials, number) for number in range(trials.num_trials))
        found.append(TrialLosses(trials.baseline, trials.label, settings, losses, normalizers))
    return found


def _aggregates(optimizers: Sequence[TrialLosses]) -> list[Row]:
    """Returns the best of all Shampoos, of all others with a learning rate to tune, and of everything."""
    groups = {
        "best of every Shampoo": [o for o in optimizers if o.name in SHAMPOOS],
        "best of everything else": [o for o in optimizers if o.name not in SHAMPOOS],
        ALL_BASELINES: list(optimizers),
    }
    if not groups["best of every Shampoo"]:
        del groups["best of every Shampoo"], groups["best of everything else"]
    return [best_of_all(name, group) for name, group in groups.items() if len(group) > 1]


def _clock_rows(summary: EvaluationSummary, label: str) -> tuple[Row, ...]:
    """Returns the candidate's rows in steps and by the clock; none where the clock was not read."""
    speedups = summary.clock_speedups(CANDIDATE)
    if speedups is None:
        return ()
    by_clock = make_row(clock_name(label), 1, speedups.at(headline_indices(summary)))
    return (_learned_row(summary, CANDIDATE, f"{label}, in steps"), by_clock)


def _learned_row(summary: EvaluationSummary, optimizer: str, label: str) -> Row:
    return make_row(label, 1, summary.speedups(optimizer).at(headline_indices(summary)))


def _sorted(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.iqm, reverse=True)
