"""Tables of optimizers: columns by hand, which trials are shown, and the best of many."""

from __future__ import annotations

import numpy as np
import pytest

from curriculum.evaluation.comparison import (
    TrialSpeedups,
    best_of_all,
    best_of_rows,
    make_row,
    single_trial_rows,
)


def optimizer(name: str, speedups: np.ndarray, losses: np.ndarray | None = None) -> TrialSpeedups:
    """One seed; speed-ups and losses are [tasks, trials]."""
    losses = 1.0 / (speedups + 1.0) if losses is None else losses
    settings = tuple(f"trial {i}" for i in range(speedups.shape[1]))
    return TrialSpeedups(name, f"tuned {name}", settings, speedups[..., None], losses[..., None])


def test_columns_by_hand() -> None:
    """Speed-ups 0, 1, 2, 60 of four tasks: the means clip 60 to 30 and 1/0 to 10."""
    row = make_row("x", 1, np.asarray([[0.0], [1.0], [2.0], [60.0]]))
    assert row.mean_speedup == (0 + 1 + 2 + 30) / 4
    assert row.mean_cost == pytest.approx((10 + 1 + 0.5 + 1 / 60) / 4)
    assert row.quantiles[3] == 1.5
    assert row.iqm == 1.5  # of the middle two
    assert row.share_twice == 0.5
    assert (row.num_diverged, row.num_tasks, row.num_seeds) == (1, 4, 1)
    assert row.iqm_over_seeds == (1.5, 1.5)  # one seed says nothing of others
    assert row.iqm_over_tasks[0] < 1.5 < row.iqm_over_tasks[1]


def test_single_rows_are_the_best_in_mean_and_in_median() -> None:
    by_mean = [9.0, 0.0, 0.0]
    by_median = [2.0, 2.0, 2.0]
    speedups = np.asarray([[0.1] * 3, by_mean, by_median]).T
    rows = single_trial_rows(optimizer("adam", speedups))
    assert [row.name for row in rows] == ["adam, trial 1", "adam, trial 2"]
    assert all(row.num_trials == 1 for row in rows)


def test_where_one_is_best_in_both_the_second_in_the_median_is_shown() -> None:
    speedups = np.asarray([[3.0] * 3, [1.0] * 3, [2.0] * 3]).T
    names = [row.name for row in single_trial_rows(optimizer("adam", speedups))]
    assert names == ["adam, trial 0", "adam, trial 2"]


def test_a_list_is_used_from_its_head_and_nothing_to_tune_is_one_row() -> None:
    speedups = np.linspace(0.5, 2.0, 24).reshape(2, 12)
    (single,) = single_trial_rows(optimizer("opt_list", speedups))
    assert single.iqm == pytest.approx(speedups[:, 0].mean())
    assert [row.num_trials for row in best_of_rows([optimizer("opt_list", speedups)])] == [5, 10, 12]
    assert len(single_trial_rows(optimizer("prodigy", speedups[:, :1]))) == 1


def test_the_best_trial_is_chosen_per_task_by_its_loss() -> None:
    """On the first task the second trial ends lowest, on the second the first; one that diverged never wins."""
    speedups = np.asarray([[1.0, 5.0, 0.0], [4.0, 2.0, 9.0]])
    losses = np.asarray([[0.5, 0.1, np.nan], [0.2, 0.3, np.inf]])
    one = optimizer("adam", speedups, losses)
    assert one.best()[:, 0].tolist() == [5.0, 4.0]
    assert one.best(1)[:, 0].tolist() == [1.0, 4.0]


def test_the_best_of_all_is_at_least_each() -> None:
    rng = np.random.default_rng(0)
    many = [optimizer(f"o{i}", rng.lognormal(size=(6, 4))) for i in range(3)]
    row = best_of_all("all", many)
    assert row.num_trials == 12
    assert all(row.iqm >= each.iqm for each in best_of_rows(many))
    with pytest.raises(ValueError, match="must name at least one"):
        best_of_all("all", [])
