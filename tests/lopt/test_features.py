"""Accumulators and features against hand-worked numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.features import accumulators, grouping, loss_history, progress
from lopt.features.per_tensor import reference_rms


def test_debiased_average_of_a_constant_is_the_constant() -> None:
    ema = jnp.float32(0.0)
    for step in range(1, 6):
        ema = accumulators.update_ema(ema, jnp.float32(3.0), 0.99)
        assert float(accumulators.debias(ema, 0.99, jnp.float32(step))) == pytest.approx(3.0, rel=1e-5)


def test_debias_before_any_update_is_zero_not_nan() -> None:
    assert float(accumulators.debias(jnp.float32(0.0), 0.9, jnp.float32(0.0))) == 0.0


@pytest.mark.parametrize(
    ("shape", "axes"), [((), None), ((4,), None), ((3, 5), (0, 1)), ((5, 3), (1, 0)), ((3, 3, 8, 4), (3, 2))]
)
def test_factored_axes_are_the_two_largest(shape: tuple[int, ...], axes: tuple[int, int] | None) -> None:
    assert accumulators.factored_axes(shape) == axes


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 3, 4), (3, 3, 2, 4)])
def test_factored_root_is_exact_for_a_rank_one_second_moment(shape: tuple[int, ...]) -> None:
    """g² = r⊗c (per slice of the other axes): rows and columns then determine it."""
    axes = accumulators.factored_axes(shape)
    assert axes is not None
    row_axis, col_axis = axes
    row_shape = [1] * len(shape)
    row_shape[row_axis] = shape[row_axis]
    col_shape = [1] * len(shape)
    col_shape[col_axis] = shape[col_axis]
    rows = jnp.arange(1.0, shape[row_axis] + 1).reshape(row_shape)
    cols = 0.5 * jnp.arange(1.0, shape[col_axis] + 1).reshape(col_shape)
    squared = jnp.broadcast_to(rows * cols, shape)
    moment = accumulators.update_factored(accumulators.init_factored(shape), squared, 0.9, shape=shape)
    root = accumulators.factored_rsqrt(moment, shape, 0.9, jnp.float32(1.0), floor=1e-30)
    np.testing.assert_allclose(jnp.broadcast_to(root, shape), 1 / jnp.sqrt(squared), rtol=1e-5)


def test_loss_trend_matches_the_log_ratio_for_small_changes() -> None:
    decays = (0.8, 0.99)
    history = loss_history.init_loss_history(2)
    assert loss_history.loss_trend(history, jnp.float32(2.0), decays).tolist() == [0.0, 0.0]
    history = loss_history.update_loss_history(history, jnp.float32(2.0), decays)
    trend = loss_history.loss_trend(history, jnp.float32(1.8), decays)
    np.testing.assert_allclose(trend, np.log(2.0 / 1.8), rtol=2e-3)
    extreme = loss_history.loss_trend(history, jnp.float32(1e30), decays)
    np.testing.assert_allclose(extreme, -2.0, rtol=1e-5)


def test_a_lost_loss_leaves_the_history_alone() -> None:
    decays = (0.9,)
    history = loss_history.update_loss_history(loss_history.init_loss_history(1), jnp.float32(1.0), decays)
    after = loss_history.update_loss_history(history, jnp.float32(jnp.nan), decays)
    np.testing.assert_array_equal(after.ema, history.ema)
    assert float(after.num_losses) == 1.0
    assert loss_history.loss_trend(after, jnp.float32(jnp.nan), decays).tolist() == [0.0]


def test_progress_features_and_cosine() -> None:
    np.testing.assert_allclose(progress.tanh_fraction(jnp.float32(0.4))[3], 0.0, atol=1e-6)
    assert progress.tanh_fraction(jnp.float32(0.4)).shape == (9,)
    values = [float(progress.cosine_decay(jnp.float32(t), jnp.float32(10.0))) for t in (0, 5, 10, 15)]
    np.testing.assert_allclose(values, [1.0, 0.5, 0.0, 0.0], atol=1e-6)


def test_reference_rms_gives_vectors_the_matrices_mean() -> None:
    initial = jnp.asarray([0.1, 0.0, 0.4, 3.0])
    reference = reference_rms(initial, (True, False, True, False))
    np.testing.assert_allclose(reference, [0.1, 0.2, 0.4, 0.2], rtol=1e-5)  # √(0.1·0.4) = 0.2
    np.testing.assert_allclose(reference_rms(jnp.asarray([3.0, 0.0]), (False, False)), [3.0, 1.0])
    np.testing.assert_allclose(reference_rms(jnp.asarray([0.0, 0.5]), (True, True)), [0.5, 0.5], rtol=1e-6)


def test_grouping_round_trips_and_leaves_large_tensors_alone() -> None:
    tensors = [
        jnp.arange(6.0).reshape(2, 3),
        jnp.zeros((0, 2)),
        jnp.float32(7.0),
        jnp.arange(20.0).reshape(4, 5),
    ]
    plan = grouping.plan(tensors, small=8)
    assert plan.groups == ((0, 2), (3,))
    vectors = grouping.gather(plan, tensors)
    for a, b in zip(grouping.scatter(plan, vectors), tensors, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(grouping.tensor_mean(plan, 0, vectors[0]), [2.5, 7.0])
    np.testing.assert_array_equal(grouping.spread(plan, 0, jnp.asarray([1.0, 9.0])), [1.0] * 6 + [9.0])
    assert jax.tree.leaves(plan)  # hashable and static
    assert hash(plan) == hash(grouping.plan(tensors, small=8))
