"""The features and accumulators of `rnn_mlp`, one by one, against closed forms."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.features import loss_statistics as ls
from lopt.features import rolling_clip as rc
from lopt.features import tensor_statistics as ts
from lopt.features.sinusoids import sinusoidal_step
from lopt.features.stacks import plan_stacks


def statistics(losses: list[float], decay: float) -> ls.LossStatistics:
    stats = ls.init_loss_statistics()
    for loss in losses:
        stats = ls.update_loss_statistics(stats, jnp.float32(loss), decay)
    return stats


def test_first_loss_is_zero_deviations_from_itself_whatever_its_size() -> None:
    for loss in (0.0, -2.0, 1e-6, 1e12, 1e20):
        stats = statistics([loss], 0.9)
        assert float(ls.standardized(stats, jnp.float32(loss), 0.9)) == pytest.approx(0.0, abs=1e-4)


def test_deviation_by_hand() -> None:
    """Losses 2, 1 at decay ½: means 1, 1 (debiased 4/3); variances ½·1² = ½, ½·½ + ½·0² = ¼ (debiased 1/3)."""
    stats = statistics([2.0, 1.0], 0.5)
    assert float(ls.mean_loss(stats, 0.5)) == pytest.approx(4 / 3)
    assert float(ls.standardized(stats, jnp.float32(1.0), 0.5)) == pytest.approx(
        (1 - 4 / 3) / math.sqrt(1 / 3)
    )
    assert float(ls.standardized(stats, jnp.float32(9.0), 0.5)) == 5.0
    assert float(ls.standardized(stats, jnp.float32(-9.0), 0.5)) == -5.0


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_a_lost_loss_counts_as_none(lost: float) -> None:
    before, after = statistics([2.0, 1.0], 0.9), statistics([2.0, lost, 1.0], 0.9)
    np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
    assert float(ls.standardized(before, jnp.float32(lost), 0.9)) == 0.0


def test_a_spike_beyond_float32s_square_is_survived_and_forgotten() -> None:
    stats = statistics([1.0, 1e30] + [1.0 + 0.1 * (i % 3) for i in range(1500)], 0.9)
    assert float(ls.mean_loss(stats, 0.9)) == pytest.approx(1.1, abs=0.05)
    assert abs(float(ls.standardized(stats, jnp.float32(1.1), 0.9))) < 2.0


def test_before_any_loss_the_mean_is_zero_also_compiled() -> None:
    assert float(jax.jit(lambda: ls.mean_loss(ls.init_loss_statistics(), 0.9))()) == 0.0


def test_clip_starts_at_the_multiplier_and_follows_the_size() -> None:
    """The start counts as one observation of 1; then n of size s: (α + … ) by the definition, debiased."""
    clip = rc.init_rolling_clip(rc.FIXED_CLIP)
    assert float(rc.clip_bound(clip, rc.FIXED_CLIP)) == pytest.approx(10.0, rel=1e-5)
    for n in range(1, 6):
        clip = rc.update_rolling_clip(clip, jnp.float32(9.0), rc.FIXED_CLIP)
        weights = 0.99 ** np.arange(n, -1, -1)
        expected = 10.0 * (weights[0] * 1.0 + weights[1:].sum() * 3.0) / weights.sum()
        assert float(rc.clip_bound(clip, rc.FIXED_CLIP)) == pytest.approx(expected, rel=1e-4)


def test_one_spike_raises_a_settled_bound_by_a_tenth_at_most() -> None:
    clip = rc.RollingClip(jnp.float32(2.0), jnp.float32(1e5))
    bound = rc.clip_bound(clip, rc.FIXED_CLIP)
    after = rc.clip_bound(rc.update_rolling_clip(clip, jnp.square(bound), rc.FIXED_CLIP), rc.FIXED_CLIP)
    assert 1.05 < float(after / bound) < 1.1


def test_learned_clip_starts_as_the_fixed_one_and_cannot_leave_its_range() -> None:
    start = rc.learned_clip(rc.init_clip_theta())
    np.testing.assert_allclose(np.asarray(start), np.asarray(rc.FIXED_CLIP), rtol=1e-5)
    for extreme in (-100.0, 100.0):
        settings = rc.learned_clip(
            {"log_one_minus_decay": jnp.float32(extreme), "log_multiplier": jnp.float32(extreme)}
        )
        clip = rc.init_rolling_clip(settings)
        for _ in range(3):
            clip = rc.update_rolling_clip(clip, jnp.float32(4.0), settings)
        bound = float(rc.clip_bound(clip, settings))
        assert 0.0 <= float(settings.decay) < 1.0
        assert math.isfinite(bound)
        assert bound > 0.0


def test_sinusoids_turn_at_their_time_scales() -> None:
    """At t = ½π²s the sine of scale s is at its first maximum."""
    peaks = [
        float(sinusoidal_step(jnp.float32(0.5 * math.pi**2 * s))[i]) for i, s in enumerate((1, 3, 10, 30))
    ]
    np.testing.assert_allclose(peaks, 1.0, rtol=1e-4)
    np.testing.assert_array_equal(sinusoidal_step(jnp.float32(0.0)), np.zeros(11))


def test_moments_are_those_of_all_elements_of_all_arrays() -> None:
    leaves = [jax.random.normal(jax.random.key(i), (3, 4, 2)) + 100.0 for i in range(2)]
    (stack,) = plan_stacks(leaves)
    arrays = [jnp.stack(leaves), 2.0 * jnp.stack(leaves), jnp.zeros((2, 3, 4, 2))]
    moments = ts.tensor_moments(stack, arrays)
    for k in range(2):
        everything = np.stack([np.asarray(a[k], np.float64) for a in arrays])
        assert float(moments.mean[k]) == pytest.approx(everything.mean(), rel=1e-5)
        assert float(moments.variance[k]) == pytest.approx(everything.var(), rel=1e-5)


def test_variance_of_nearly_equal_numbers_is_not_lost_in_rounding() -> None:
    """Spread 0.1 around 1000: a difference of mean squares would be off by its own size."""
    leaf = 1000.0 + 0.1 * jax.random.normal(jax.random.key(0), (50, 40))
    (stack,) = plan_stacks([leaf])
    variance = float(ts.tensor_moments(stack, [leaf[None]]).variance[0])
    assert variance == pytest.approx(float(np.var(np.asarray(leaf, np.float64))), rel=1e-2)


def test_only_scalars_are_scalars_and_shapes_are_padded() -> None:
    leaves = [jnp.float32(1.0), jnp.ones((1,)), jnp.ones((2, 3, 4, 5, 6))]
    vector, deep = plan_stacks(leaves)
    inputs = ts.SummaryInputs(
        stack=vector,
        is_scalar=np.asarray([True, False]),
        **dict.fromkeys(ts.SummaryInputs._fields[2:], None),  # type: ignore[arg-type]
    )
    np.testing.assert_array_equal(ts.SUMMARIES["is_scalar"](inputs), [[1.0], [-1.0]])
    np.testing.assert_allclose(ts.SUMMARIES["shape"](inputs), -np.ones((2, 4)))
    logs = ts.SUMMARIES["shape"](inputs._replace(stack=deep))
    np.testing.assert_allclose(logs, [np.log([2.0, 3.0, 4.0, 5.0]) - 1.0], rtol=1e-6)


def test_names_and_sizes_agree() -> None:
    assert list(ts.summary_sizes(18, 16)) == list(ts.SUMMARIES)
    assert sum(ts.summary_sizes(18, 16).values()) == 52
    assert sum(ts.context_sizes(17).values()) == 31
