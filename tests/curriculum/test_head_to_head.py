"""How often one ends lower than another: by hand, where runs diverge, with the best of many, and its intervals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from curriculum.evaluation.head_to_head import HeadToHeadRow, make_head_to_head_row

INF, NAN = np.inf, np.nan


def row(ours: ArrayLike, theirs: ArrayLike) -> HeadToHeadRow:
    return make_head_to_head_row("x", np.asarray(ours, float), np.asarray(theirs, float))


def test_by_hand() -> None:
    """Two of two seeds lower; one lower and one equal, which counts half; none lower."""
    found = row([[1, 2], [1, 2], [5, 5]], [[[3, 3]], [[3, 2]], [[4, 4]]])
    assert found.probability == pytest.approx((1.0 + 0.75 + 0.0) / 3)
    assert (found.num_won, found.num_lost, found.num_tasks, found.num_seeds, found.num_trials) == (
        2,
        1,
        3,
        2,
        1,
    )


def test_a_run_is_compared_with_that_of_its_seed() -> None:
    """Each seed draws its own problem: ours is lower in both, and above theirs of the other seed in one."""
    assert row([[1.0, 100.0]], [[[2.0, 200.0]]]).probability == 1.0


def test_of_many_trials_the_lowest_in_the_mean_counts_on_every_seed() -> None:
    """The first trial has the lower mean; the second one would be lower with the first seed."""
    found = row([[2.0, 2.0]], [[[3.0, 1.0], [1.5, 9.0], [NAN, 0.0]]])
    assert (found.probability, found.num_trials) == (0.5, 3)
    assert (found.num_won, found.num_lost) == (0, 0)  # 2 against the mean of 3 and 1


def test_what_diverged_is_above_everything_and_two_that_did_are_equal() -> None:
    assert row([[NAN, INF]], [[[1.0, 1.0]]]).probability == 0.0
    assert row([[NAN, 1.0]], [[[NAN, NAN]]]).probability == 0.75
    found = row([[NAN, 1.0], [1.0, 1.0]], [[[INF, 2.0]], [[NAN, 2.0]]])
    assert (found.num_won, found.num_lost) == (1, 0)  # on the first task neither has a mean


def test_swapped_it_is_the_rest() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 3, (2, 20, 3)).astype(float)
    here, there = row(one, other[:, None]), row(other, one[:, None])
    assert here.probability == pytest.approx(1.0 - there.probability)
    assert (here.num_won, here.num_lost) == (there.num_lost, there.num_won)
    for mine, yours in ((here.over_tasks, there.over_tasks), (here.over_seeds, there.over_seeds)):
        assert mine == pytest.approx([1.0 - end for end in yours[::-1]], abs=0.03)


def test_intervals_hold_what_they_say() -> None:
    """Tasks drawn from a population in which X ends lower with 0.6: the interval over tasks has it 19 of 20 times.

    With twenty tasks a percentile interval of a mean is a little narrow: it has it in 183 to 187 of 200.
    """
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        chance = rng.beta(1.2, 0.8, 20)[:, None]  # per task; its mean is 0.6
        ours = np.where(rng.uniform(size=(20, 3)) < chance, 0.0, 2.0)
        found = row(ours, np.ones((20, 1, 3)))
        low, high = found.over_tasks
        held += low <= 0.6 <= high
    assert 172 <= held <= 200


def test_one_seed_or_one_task_has_no_interval() -> None:
    assert row([[1.0], [1.0]], [[[2.0]], [[2.0]]]).over_seeds is None
    assert row([[1.0, 1.0]], [[[2.0, 2.0]]]).over_tasks is None
    assert row([[1.0], [1.0]], [[[2.0]], [[2.0]]]).over_tasks == (1.0, 1.0)


def test_other_tasks_or_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same tasks and seeds, got \(2, 2\) and \(2, 1, 3\)"):
        row(np.zeros((2, 2)), np.zeros((2, 1, 3)))
    with pytest.raises(ValueError, match="same tasks and seeds"):
        row(np.zeros((2, 0)), np.zeros((2, 1, 0)))
