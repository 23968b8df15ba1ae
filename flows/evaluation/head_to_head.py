"""The table of an evaluation that needs no normaliser: the candidate against each other one, by final losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curriculum.evaluation.comparison import TrialLosses
from curriculum.evaluation.head_to_head import HeadToHeadRow, make_head_to_head_row
from curriculum.evaluation.summary import CANDIDATE, INITIALISATION, EvaluationSummary
from flows.evaluation.tables import ALL_BASELINES, headline_indices
from flows.reporting import untrained_name


def head_to_head_rows(
    summary: EvaluationSummary, optimizers: Sequence[TrialLosses], label: str
) -> tuple[HeadToHeadRow, ...]:
    """Returns a row for the candidate's initialisation, two for every baseline (its one setting for all tasks, the
    best of its trials per task), and one for the best of all baselines. The strongest opponent comes first.

    Args:
      summary: Of the evaluation.
      optimizers: The baselines on the tasks of its headline.
      label: What the candidate is called.
    """
    ours = _learned(summary, CANDIDATE)
    opponents = {untrained_name(label): _learned(summary, INITIALISATION)[:, None]}
    for optimizer in optimizers:
        opponents |= _opponents(optimizer)
    if len(optimizers) > 1:
        opponents[ALL_BASELINES] = np.concatenate([optimizer.losses for optimizer in optimizers], axis=1)
    rows = [make_head_to_head_row(name, ours, theirs) for name, theirs in opponents.items()]
    return tuple(sorted(rows, key=lambda row: row.probability))


def _learned(summary: EvaluationSummary, optimizer: str) -> np.ndarray:
    tasks = [summary.tasks[number] for number in headline_indices(summary)]
    return np.asarray([task.result(optimizer).final_losses for task in tasks], np.float64)


def _opponents(optimizer: TrialLosses) -> dict[str, np.ndarray]:
    """Returns final losses [tasks, trials, seeds] by name, with one training per task and with all."""
    one = 0 if optimizer.is_list else optimizer.best_in_the_mean()
    single = {optimizer.trial_name(one): optimizer.losses[:, one : one + 1]}
    return single | (
        {optimizer.best_name(optimizer.num_trials): optimizer.losses} if optimizer.num_trials > 1 else {}
    )
