"""Interquartile means, shares and their bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest

from curriculum.evaluation.aggregate import (
    interquartile_mean,
    share_at_least,
    stratified_bootstrap,
    task_bootstrap,
    task_quantile,
)


def test_interquartile_mean_by_hand() -> None:
    """Of 1, 2, …, 8 the two lowest and highest are left out: (3 + 4 + 5 + 6) / 4."""
    assert interquartile_mean(np.asarray([[1.0, 8.0], [2.0, 7.0], [3.0, 6.0], [4.0, 5.0]])) == 4.5
    assert interquartile_mean(np.asarray([[1.0, 2.0, 30.0]])) == 11.0  # nothing to leave out of three


def test_shares_and_quantiles_are_over_tasks() -> None:
    scores = np.asarray([[1.0, 3.0], [2.0, 4.0], [0.0, 0.0], [9.0, 1.0]])  # means 2, 3, 0, 5
    assert share_at_least(2.0)(scores) == 0.75
    assert task_quantile(0.5)(scores) == 2.5


@pytest.mark.parametrize("bootstrap", [stratified_bootstrap, task_bootstrap])
def test_intervals_are_reproducible_and_hold_the_value(bootstrap: type) -> None:
    scores = np.random.default_rng(0).lognormal(size=(12, 5))
    estimate = bootstrap(scores)
    assert estimate == bootstrap(scores)
    assert estimate.low < estimate.value == interquartile_mean(scores) < estimate.high
    assert (estimate.num_tasks, estimate.num_seeds) == (12, 5)


def test_each_interval_answers_its_own_question() -> None:
    """Where seeds agree, only other tasks could change the answer; where tasks agree, only other seeds."""
    tasks_differ = np.repeat(np.arange(1.0, 9.0)[:, None], 3, axis=1)
    assert stratified_bootstrap(tasks_differ)[1:3] == (4.5, 4.5)
    assert task_bootstrap(tasks_differ).high > 5.0
    seeds_differ = np.repeat(np.arange(1.0, 9.0)[None], 4, axis=0)
    assert stratified_bootstrap(seeds_differ).high > 4.6
    assert task_bootstrap(seeds_differ)[1:3] == (4.5, 4.5)


def test_the_stratified_interval_covers_the_truth() -> None:
    """Tasks with fixed means 1 and 3: over many experiments about 95 % of the intervals hold the mean, 2.

    Ten seeds a task: the percentile interval of so few is a little too narrow, (9/10)^½ of its width, which leaves
    about 93 %. 400 experiments have a standard error of 1.3 %.
    """
    rng = np.random.default_rng(1)
    means = np.repeat([1.0, 3.0], 10)[:, None]

    def covers(experiment: int) -> bool:
        scores = means + rng.normal(size=(20, 10))
        mean = stratified_bootstrap(scores, lambda x: x.mean(axis=(-2, -1)), num_resamples=400)
        return mean.low <= 2.0 <= mean.high

    share = np.mean([covers(i) for i in range(400)])
    assert 0.90 <= share <= 0.97


@pytest.mark.parametrize("scores", [np.ones(3), np.ones((0, 2)), np.asarray([[1.0, np.nan]])])
def test_what_cannot_be_aggregated_is_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        stratified_bootstrap(scores)
