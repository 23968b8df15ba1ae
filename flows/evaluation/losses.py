"""The table of normalised losses of an evaluation (Metz et al. 2020, App. E)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from curriculum.evaluation.curves import CurveBatch
from curriculum.evaluation.normalized_loss import LossRow, LossScale, fit_loss_scale, make_loss_row
from curriculum.evaluation.speedup import seed_mean, tuned_index
from curriculum.evaluation.summary import NORMALIZERS, EvaluationConfig, EvaluationSummary
from flows.evaluation.curves import LEARNED
from flows.evaluation.tables import headline_indices
from flows.reporting import untrained_name
from lopt.types import Split
from task_generator.evaluation_set import EvaluationTask

Batches = Mapping[tuple[str, str], CurveBatch]
SPLITS: tuple[Split, Split] = ("train", "test")
"""What is reported; the outer-validation loss, stored beside them, is for choices made about optimizers."""


class _Losses(NamedTuple):
    """One optimizer's normalised final losses by split, [tasks, trials]."""

    train: np.ndarray
    test: np.ndarray
    num_seeds: int

    def row(self, name: str, num_trials: int, chosen: np.ndarray) -> LossRow:
        """Returns the row with the trial `chosen` for each task."""
        train, test = (values[np.arange(len(chosen)), chosen] for values in (self.train, self.test))
        return make_loss_row(name, num_trials, train, test, num_seeds=self.num_seeds)


def loss_rows(
    summary: EvaluationSummary, tasks: Sequence[EvaluationTask], batches: Batches, label: str
) -> tuple[LossRow, ...]:
    """Returns a row for the candidate, its initialisation, and every baseline: one setting for all tasks ("global")
    and the best of its trials per task, chosen by training loss. Sorted by the median in training.

    Args:
      summary: Of the evaluation.
      tasks: In its order.
      batches: Curves by (task name, optimizer).
      label: What the candidate is called.
    """
    chosen = [tasks[number] for number in headline_indices(summary)]
    config, first = summary.config, np.zeros(len(chosen), int)
    scales = _scales(config, chosen, batches)
    learned = _normalized(config, chosen, batches, LEARNED, scales)
    rows = [learned.row(label, 1, first), learned.row(untrained_name(label), 1, first + 1)]
    for trials in config.trials:
        losses = _normalized(config, chosen, batches, trials.baseline, scales)
        if trials.num_trials == 1:
            rows.append(losses.row(trials.label, 1, first))
            continue
        best_for_all = first + int(np.argmin(losses.train.mean(axis=0)))
        rows.append(losses.row(f"global {trials.label.removeprefix('tuned ')}", 1, best_for_all))
        best = np.asarray(  # by the loss itself, where the bounds of the normalised one would make ties
            [
                tuned_index(batches[task.name, trials.baseline].losses["train"], config.last_point)
                for task in chosen
            ]
        )
        rows.append(losses.row(f"per task {trials.label.removeprefix('tuned ')}", trials.num_trials, best))
    return tuple(sorted(rows, key=lambda row: row.train_median))


def _scales(
    config: EvaluationConfig, tasks: Sequence[EvaluationTask], batches: Batches
) -> dict[tuple[str, Split], LossScale]:
    """Returns what 0 and 1 are, by task and split."""
    names = NORMALIZERS[config.normalizer]
    return {
        (task.name, split): fit_loss_scale(
            np.concatenate([batches[task.name, name].losses[split] for name in names]), config.last_point
        )
        for task in tasks
        for split in SPLITS
    }


def _normalized(
    config: EvaluationConfig,
    tasks: Sequence[EvaluationTask],
    batches: Batches,
    optimizer: str,
    scales: Mapping[tuple[str, Split], LossScale],
) -> _Losses:
    def of_task(task: EvaluationTask, split: Split) -> np.ndarray:
        final = batches[task.name, optimizer].losses[split][:, :, config.last_point]
        return scales[task.name, split](seed_mean(final))

    train, test = (np.stack([of_task(task, split) for task in tasks]) for split in SPLITS)
    return _Losses(train, test, config.num_seeds)
