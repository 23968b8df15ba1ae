"""Losses between a baseline's best and the start."""

from __future__ import annotations

import numpy as np
import pytest

from curriculum.evaluation.normalized_loss import fit_loss_scale, make_loss_row


def test_by_hand() -> None:
    """Seed means start at 4 and fall to 1 at best; a setting that diverges does not count."""
    curves = np.asarray([[[4.0, 2.0, 1.5], [4.0, 2.0, 0.5]], [[4.0, np.nan, np.nan], [4.0, 3.0, 2.0]]])
    scale = fit_loss_scale(curves, 2)
    assert scale == (1.0, 4.0)
    values = scale(np.asarray([1.0, 4.0, 2.5, 0.25, 9.0, np.nan, np.inf]))
    assert values.tolist() == [0.0, 1.0, 0.5, -0.25, 1.0, 1.0, 1.0]


def test_zero_is_the_baseline_at_the_horizon_wherever_it_runs_on_to() -> None:
    """At the third point 2, whatever comes later, and though it was at 1.5 before."""
    curve = np.asarray([[[4.0, 1.5, 2.0, 0.5, 0.1]]])
    assert fit_loss_scale(curve, 2) == fit_loss_scale(curve[:, :, :3], 2) == (2.0, 4.0)


def test_one_task_on_which_the_baseline_hardly_moved_does_not_rule_the_mean() -> None:
    """From 0.700 to 0.699, and a candidate at 0.650: (0.650 − 0.699) / 0.001 = −49."""
    scale = fit_loss_scale(np.asarray([[[0.700, 0.699]]]), 1)
    assert scale(np.asarray([0.650, 0.6985])).tolist() == [-1.0, pytest.approx(-0.5)]


def test_a_row_is_over_tasks() -> None:
    row = make_loss_row("x", 3, np.asarray([0.1, 0.4, 1.0]), np.ones(3), num_seeds=2)
    assert (row.train_mean, row.train_median) == (pytest.approx(0.5), 0.4)
    assert (row.test_mean, row.num_trials, row.num_tasks, row.num_seeds) == (1.0, 3, 3, 2)


def test_where_the_baseline_never_improves_only_who_did_counts() -> None:
    scale = fit_loss_scale(np.asarray([[[2.0, 3.0, np.nan]]]), 2)
    assert scale(np.asarray([1.9, 2.0, 5.0, np.nan])).tolist() == [0.0, 1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="no setting of the baseline has a finite loss"):
        fit_loss_scale(np.full((2, 1, 3), np.nan), 2)
