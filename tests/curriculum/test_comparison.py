"""Tables of optimizers: columns by hand, which trials are shown, and the best of many."""

from __future__ import annotations

import numpy as np
import pytest

from curriculum.evaluation.aggregate import Speedups
from curriculum.evaluation.comparison import (
    TrialLosses,
    best_of_all,
    best_of_rows,
    make_row,
    single_trial_rows,
)
from curriculum.evaluation.speedup import SpeedupNormalizer
from curriculum.evaluation.task_normalizer import TaskNormalizer, seed_draws

CAP = 100.0


def straight(losses: tuple[float, ...] = (CAP, 0.0), steps: tuple[float, ...] = (0.0, CAP)) -> TaskNormalizer:
    """Returns a normaliser for one seed and a horizon of 1: a loss of 100 − x is reached after x steps."""
    own = SpeedupNormalizer(np.asarray(steps), np.asarray(losses))
    return TaskNormalizer(1, own, (own,), seed_draws(1), ())


def optimizer(name: str, speedups: np.ndarray) -> TrialLosses:
    """One seed; speed-ups are [tasks, trials]."""
    settings = tuple(f"trial {i}" for i in range(speedups.shape[1]))
    losses = CAP - speedups[..., None]
    return TrialLosses(name, f"tuned {name}", settings, losses, (straight(),) * len(speedups))


def on_tasks(values: list[float], *, cap: float = CAP, num_diverged: int = 0) -> Speedups:
    """Returns speed-ups on tasks with one seed, of which the first `num_diverged` ended with no finite loss."""
    tasks = np.asarray(values)
    finite = np.arange(len(tasks)) >= num_diverged
    return Speedups(tasks, np.zeros((len(tasks), 0)), np.full(len(tasks), cap), finite[:, None])


def test_columns_by_hand() -> None:
    """Speed-ups 0, 1, 2, 60 of four tasks: the means clip 60 to 30 and 1/0 to 10."""
    row = make_row("x", 1, on_tasks([0.0, 1.0, 2.0, 60.0]))
    assert row.mean_speedup == (0 + 1 + 2 + 30) / 4
    assert row.mean_cost == pytest.approx((10 + 1 + 0.5 + 1 / 60) / 4)
    assert row.quantiles[3] == 1.5
    assert row.iqm == 1.5  # of the middle two
    assert row.share_twice == 0.5
    assert (row.num_tasks, row.num_seeds) == (4, 1)
    assert row.iqm_over_seeds is None  # one seed says nothing of others
    assert row.iqm_over_tasks is not None
    assert row.iqm_over_tasks[0] < 1.5 < row.iqm_over_tasks[1]
    assert make_row("x", 1, on_tasks([3.0])).iqm_over_tasks is None
    assert row.bounds == ()


def test_what_is_no_better_than_the_start_has_not_diverged() -> None:
    row = make_row("x", 1, on_tasks([0.0, 0.0, 2.0, 3.0], num_diverged=1))
    assert (row.num_diverged, row.num_no_better) == (1, 1)


def test_a_statistic_that_rests_on_a_capped_task_is_a_bound() -> None:
    """Of 1, 2, 10, 10 with a cap of 10: the median is between 2 and at least 10, the lower quartile is known."""
    row = make_row("x", 1, on_tasks([1.0, 2.0, 10.0, 10.0], cap=10.0))
    assert row.num_capped == 2
    assert row.quantiles[3] == 6.0
    assert set(row.bounds) >= {"mean_speedup", "mean_cost", "quantile 0.5", "quantile 0.75", "iqm"}
    assert not set(row.bounds) & {"quantile 0.05", "quantile 0.1", "quantile 0.25", "share_twice"}
    # The middle half of eight is 2, 3, 4, 5, whatever the fastest two really are.
    assert "iqm" not in make_row("x", 1, on_tasks([0.5, 1.0, 2, 3, 4, 5, 10, 10], cap=10.0)).bounds
    # A mean that is clipped at 30 asks no more than that, a cost does.
    assert make_row("x", 1, on_tasks([1.0, 40.0], cap=40.0)).bounds[:2] == ("mean_cost", "quantile 0.05")


def test_by_the_clock_a_capped_task_stays_one() -> None:
    """At the cap of 4, then three times as fast or slow: 12 is at least that, and so is 1.33, which may be 2."""
    clock = on_tasks([4.0, 4.0, 1.0], cap=4.0).times(np.asarray([3.0, 1 / 3, 1.0]))
    row = make_row("x", 1, clock)
    assert row.num_capped == 2
    assert row.share_twice == pytest.approx(1 / 3)
    assert "share_twice" in row.bounds


def test_twice_as_fast_cannot_be_seen_in_less_than_twice_the_steps() -> None:
    unseen = make_row("x", 1, on_tasks([1.0, 0.5], cap=1.0))
    assert unseen.share_twice is None
    assert unseen.num_capped == 1
    assert "share_twice" not in unseen.bounds  # neither a number nor a bound of one


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


@pytest.mark.parametrize("name", ["opt_list", "opt_list_released"])
def test_a_list_is_used_from_its_head_and_nothing_to_tune_is_one_row(name: str) -> None:
    speedups = np.linspace(0.5, 2.0, 24).reshape(2, 12)
    (single,) = single_trial_rows(optimizer(name, speedups))
    assert single.iqm == pytest.approx(speedups[:, 0].mean())
    assert [row.num_trials for row in best_of_rows([optimizer(name, speedups)])] == [5, 10, 12]
    assert len(single_trial_rows(optimizer("prodigy", speedups[:, :1]))) == 1


def test_the_best_trial_is_chosen_per_task_by_its_loss() -> None:
    """On the first task the second trial ends lowest, on the second the first; one that diverged never wins.

    Loss 0.6 at the start and 0 after 6 steps: 0.1 is reached after 5; 0.4 and 0 after 8: 0.2 after 4.
    """
    losses = np.asarray([[0.5, 0.1, np.nan], [0.2, 0.3, np.inf]])[..., None]
    normalizers = (straight((0.6, 0.0), (0.0, 6.0)), straight((0.4, 0.0), (0.0, 8.0)))
    one = TrialLosses("adam", "tuned Adam", ("a", "b", "c"), losses, normalizers)
    np.testing.assert_allclose(one.per_trial(), [[1.0, 5.0, 0.0], [4.0, 2.0, 0.0]])
    np.testing.assert_allclose(one.best().tasks, [5.0, 4.0])
    np.testing.assert_allclose(one.best(1).tasks, [1.0, 4.0])
    assert one.trial(2).finite.tolist() == [[False], [False]]


def test_the_best_of_all_is_at_least_each() -> None:
    rng = np.random.default_rng(0)
    many = [optimizer(f"o{i}", rng.lognormal(size=(6, 4))) for i in range(3)]
    row = best_of_all("all", many)
    assert row.num_trials == 12
    assert all(row.iqm >= each.iqm for each in best_of_rows(many))
    with pytest.raises(ValueError, match="must name at least one"):
        best_of_all("all", [])
