"""Losses are averaged over seeds, then normalised; and what is said of seeds is said of the baseline's too."""

from __future__ import annotations

import numpy as np
import pytest

from curriculum.evaluation.aggregate import stratified_bootstrap
from curriculum.evaluation.baseline_budgets import Trials
from curriculum.evaluation.comparison import TrialLosses, best_of_rows, make_row, single_trial_rows
from curriculum.evaluation.curves import CurveBatch
from curriculum.evaluation.summary import CANDIDATE, EvaluationConfig, summarize, summarize_task
from curriculum.evaluation.task_normalizer import TaskNormalizer, best_speedups, fit_task_normalizer
from task_generator.evaluation_set import get_evaluation_set

HORIZON = 100
STEP = np.arange(0, 501, 10)
RATES = np.asarray([0.5, 1.0, 2.0])
"""How fast each setting of the baseline falls: the third is best everywhere."""
TASK = get_evaluation_set("heldout_demo")[0]


def falling(rates: np.ndarray, scales: list[float]) -> np.ndarray:
    """Returns convex curves that are flat late, [settings, seeds, points]; the seeds have these loss scales."""
    curve = 1.0 / (1.0 + rates[:, None] * STEP / 20.0)
    return np.asarray(scales)[None, :, None] * curve[:, None]


def normalizer(scales: list[float]) -> TaskNormalizer:
    return fit_task_normalizer(STEP, falling(RATES, scales), HORIZON)


def final(curves: np.ndarray) -> np.ndarray:
    return curves[:, :, HORIZON // 10]


@pytest.mark.parametrize("scales", [[1.0, 10.0], [1.0, 10.0, 100.0], [0.3] * 9 + [7.0]])
def test_a_baseline_is_exactly_as_fast_as_itself_whatever_the_scales_of_its_seeds(
    scales: list[float],
) -> None:
    """Seed by seed against the envelope of means, curves c and 10 c come out as 5 (the cap) and 0.5."""
    own = normalizer(scales)
    losses = final(falling(RATES, scales))
    assert own.speedup(losses[2]) == 1.0
    assert own.by_seed(losses[2]).tolist() == [1.0] * len(scales)
    trials = TrialLosses("adam", "tuned Adam", ("slow", "middle", "fast"), losses[None], (own,))
    (row,) = best_of_rows([trials])
    assert (row.iqm, row.mean_speedup, row.mean_cost, row.quantiles) == (1.0, 1.0, 1.0, (1.0,) * 5)
    assert row.iqm_over_seeds == (1.0, 1.0)  # with any seeds it is as fast as itself
    assert (row.num_no_better, row.num_diverged, row.num_capped, row.share_twice) == (0, 0, 0, 0.0)
    assert max(single.mean_speedup for single in single_trial_rows(trials)) == 1.0


def test_what_is_better_is_faster_and_what_is_worse_slower() -> None:
    """1 / (1 + 4 · 100/20) is reached by the best setting, 1 / (1 + 2 t/20), at 200; half its rate is, at 50."""
    scales = [1.0, 10.0]
    own = normalizer(scales)
    better, worse = (best_speedups((own,), final(falling(np.asarray([r]), scales))[None]) for r in (4.0, 1.0))
    assert better.tasks == pytest.approx([2.0], rel=1e-3)
    assert worse.tasks == pytest.approx([0.5], rel=1e-3)
    assert stratified_bootstrap(better)[:3] == pytest.approx((2.0, 2.0, 2.0), rel=1e-3)


def test_a_summary_is_of_the_mean_loss_and_its_seeds_have_their_own_baseline() -> None:
    config = EvaluationConfig(
        horizon=HORIZON, points_per_horizon=10, normalizer_factor=5, num_seeds=2, baselines=("adam",)
    )
    rates = np.full(Trials("adam", 15).num_trials, 0.5)
    rates[9] = 2.0
    adam = CurveBatch(STEP, {"train": falling(rates, [1.0, 10.0]).astype(np.float32)}, 1e-3)
    learned = falling(np.asarray([2.0, 4.0]), [1.0, 10.0])[:, :, :11].astype(np.float32)
    result = summarize_task(
        config,
        TASK,
        held_out=True,
        learned={"initialisation": learned[0], "candidate": learned[1]},
        baselines={"adam": adam},
    )
    for name in ("adam", "initialisation"):
        assert (result.result(name).speedup, result.result(name).seed_speedups) == (1.0, (1.0, 1.0))
    candidate = result.result("candidate")
    assert candidate.speedup == pytest.approx(2.0, rel=1e-3)
    assert candidate.seed_speedups == pytest.approx((2.0, 2.0), rel=1e-3)
    assert candidate.redrawn_speedups == pytest.approx((2.0, 2.0), rel=1e-3)
    summary = summarize(config, [result])
    assert summary.geometric_mean_speedup("initialisation") == 1.0
    assert make_row("x", 1, summary.speedups(CANDIDATE)).mean_speedup == candidate.speedup


def test_a_diverged_seed_is_seen_though_the_other_did_well() -> None:
    scales = [1.0, 10.0]
    losses = final(falling(np.asarray([4.0]), scales))
    losses[0, 1] = np.inf
    found = best_speedups((normalizer(scales),), losses[None])
    row = make_row("x", 1, found)
    assert (row.mean_speedup, row.num_diverged, row.num_no_better) == (0.0, 1, 0)
    assert row.iqm_over_seeds is not None
    assert row.iqm_over_seeds[1] > 1.0  # with the other seed alone it would have been fast


def test_the_interval_has_the_noise_of_the_baseline_s_seeds() -> None:
    """The optimizer's loss is the same with every seed; only the baseline's speed differs: 1 / (1 + r · 100/20) is
    reached by a seed that falls at rate b after 100 r / b steps."""
    slow, fast = falling(np.asarray([1.0]), [1.0]), falling(np.asarray([4.0]), [1.0])
    own = fit_task_normalizer(STEP, np.concatenate([slow, fast], axis=1), HORIZON)
    losses = np.repeat(final(falling(np.asarray([2.0]), [1.0])), 2, axis=1)
    found = best_speedups((own,), losses[None])
    np.testing.assert_allclose(found.redrawn, [[2.0, 0.5]], rtol=1e-3)
    estimate = stratified_bootstrap(found)
    assert estimate.high - estimate.low == pytest.approx(1.5, rel=1e-3)
    assert estimate.low <= estimate.value < estimate.high


def test_with_other_seeds_another_trial_may_be_the_best() -> None:
    """Two settings, each better with one seed: the baseline tuned anew for whatever seeds are drawn is itself."""
    curves = np.concatenate(
        [falling(np.asarray([1.0, 3.0]), [1.0]), falling(np.asarray([3.0, 1.0]), [1.0])], axis=1
    )
    own = fit_task_normalizer(STEP, curves, HORIZON)
    assert own.by_seed(final(curves)[0]).tolist() == [1.0, 1.0]  # both are as good on average: the first
    assert own.redrawn(final(curves)).tolist() == [1.0, 1.0]
    assert min(own.redrawn(final(curves)[:1])) < 0.5  # one setting, whatever the seed


def test_with_one_seed_nothing_is_drawn() -> None:
    own = normalizer([1.0])
    assert own.redrawn(final(falling(RATES, [1.0]))).size == 0
    assert own.cap == 5.0
