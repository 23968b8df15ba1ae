"""Every estimator against what it should be on average, in closed form, with confidence intervals."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.estimators import ESTIMATORS
from lopt.estimators.combined import merge_by_variance
from lopt.estimators.evolution import EvolutionConfig, evolution_gradient, mean_over_tasks
from lopt.estimators.full_es import FullEsConfig
from lopt.estimators.unrolled_backprop import drop_not_finite
from lopt.perturbations import AntitheticConfig
from tests.support.learned_rate import (
    HORIZON,
    RATE,
    WINDOW,
    LearnedRate,
    QuadraticFamily,
    final_loss_of_windows,
    mean_loss_of_windows,
    slope,
    truncated_slope,
)

SIGMA = 0.03
THETA = {"rate": jnp.float32(RATE)}
BASE: dict[str, Any] = {
    "min_horizon": HORIZON,
    "max_horizon": HORIZON,
    "num_tasks": 1,
    "num_final_batches": 1,
    "meta_loss_scale": "linear",
    "aggregate": "mean",
}
WINDOWED = {"unroll_length": WINDOW, "stagger": False}
EVOLVED = {"sigma": SIGMA, "num_pairs": 4}
FIELDS: dict[str, dict[str, Any]] = {
    "full_es": EVOLVED,
    "truncated_es": {**EVOLVED, **WINDOWED},
    "persistent_es": {**EVOLVED, **WINDOWED},
    "unrolled_backprop": WINDOWED,
    "combined": {**EVOLVED, **WINDOWED},
}
STATEFUL = [name for name in ESTIMATORS if name != "full_es"]
WHOLE = {"unroll_length": HORIZON}


def build(name: str, family: Any = None, **changes: Any) -> Any:
    config = ESTIMATORS[name].model_validate({**BASE, **FIELDS[name], **changes})
    return config.build(family or QuadraticFamily(), LearnedRate())


def trajectories(estimator: Any, count: int, windows: int, seed: int = 0) -> np.ndarray:
    """Returns the mean gradient of each of `count` trajectories of `windows` windows."""

    def one(key: jax.Array) -> jax.Array:
        def window(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            result, state = estimator.estimate(THETA, state, key)
            return state, result.mean["rate"]

        return jnp.mean(jax.lax.scan(window, estimator.init(THETA, key), jax.random.split(key, windows))[1])

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), count)), np.float64)


def assert_unbiased(samples: np.ndarray, expected: float, *, narrow: float = 0.02) -> None:
    mean, error = float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(len(samples)))
    assert error < narrow * abs(expected), "the interval must be narrow enough to mean something"
    assert abs(mean - expected) < 3.5 * error, (mean, expected, error)


TRUE = slope(lambda rate: mean_loss_of_windows(rate, 0.0))
SMOOTHED = slope(lambda rate: mean_loss_of_windows(rate, SIGMA, window=HORIZON))
EXPECTED = {
    "full_es": SMOOTHED,
    "truncated_es": truncated_slope(RATE, SIGMA),
    "persistent_es": slope(lambda rate: mean_loss_of_windows(rate, SIGMA)),
    "combined": truncated_slope(RATE, SIGMA),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_mean_over_a_trajectory_is_what_it_should_be(name: str) -> None:
    windows = 1 if name == "full_es" else HORIZON // WINDOW
    assert_unbiased(trajectories(build(name), 8_000, windows), EXPECTED[name])


def test_truncation_is_biased_and_persistence_is_not() -> None:
    """Without its past a window looks a third as steep; PES is within its smoothing of the truth."""
    assert abs(EXPECTED["truncated_es"] / TRUE) < 0.5
    assert EXPECTED["persistent_es"] == pytest.approx(TRUE, rel=0.1)


def test_a_finishing_window_is_credited_with_its_own_perturbation() -> None:
    """Of a final loss all four windows' perturbations get their part: without the last, a quarter is missing."""
    samples = trajectories(build("persistent_es", aggregate="final", num_pairs=16), 8_000, HORIZON // WINDOW)
    expected = slope(lambda rate: final_loss_of_windows(rate, SIGMA))
    assert_unbiased(samples, expected)


def test_a_trajectory_that_is_cut_early_has_no_final_loss() -> None:
    """A staggered first one ends somewhere: what it is then is not the loss at the horizon."""
    estimator = build("persistent_es", aggregate="final", stagger=True)

    def first(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = estimator.init(THETA, key)
        result, state = estimator.estimate(THETA, state, key)
        return state.trajectory.is_over & (state.trajectory.step < HORIZON), result.mean["rate"]

    cut, gradients = jax.jit(jax.vmap(first))(jax.random.split(jax.random.key(3), 200))
    assert np.sum(cut) > 10
    np.testing.assert_array_equal(np.asarray(gradients)[np.asarray(cut)], 0.0)


def test_differences_are_clipped_before_a_window_s_share_is_taken() -> None:
    """Four windows, a final loss that counts four times: a clip that no difference reaches changes nothing."""
    key = jax.random.key(1)

    def last(**changes: Any) -> tuple[np.ndarray, dict[str, Any]]:
        estimator = build("persistent_es", aggregate="final", **changes)
        state = estimator.init(THETA, key)
        for number in range(HORIZON // WINDOW):
            result, state = estimator.estimate(THETA, state, jax.random.fold_in(key, number))
        return np.asarray(result.mean["rate"]), result.metrics

    free, metrics = last()
    largest = 3.0 * float(metrics["pair_difference_rms"])  # of the losses themselves, four pairs
    assert free != 0.0
    np.testing.assert_allclose(last(difference_clip=largest)[0], free, rtol=1e-6)


def test_a_sum_that_cancels_has_a_norm() -> None:
    """With a theta of one number, rounding can make the square of a sum a little less than zero."""
    directions = AntitheticConfig().sample({"rate": jnp.float32(0.0)}, jax.random.key(0), 200_000 * 4)
    losses = jax.random.normal(jax.random.key(1), (200_000 * 4, 2))
    config = FullEsConfig(
        sigma=1.0,
        min_horizon=1,
        max_horizon=1,
        num_tasks=200_000,
        num_pairs=4,
        task_normalization="unit_norm",
    )
    gradient, _, weights = evolution_gradient(config, directions, losses, jnp.float32(1.0))
    assert np.all(np.isfinite(weights))
    assert np.isfinite(gradient["rate"])


@pytest.mark.parametrize("name", ["truncated_es", "persistent_es", "combined"])
def test_a_window_as_long_as_the_horizon_gives_the_whole_unrolls_gradient(name: str) -> None:
    assert_unbiased(trajectories(build(name, **WHOLE), 6_000, 1), SMOOTHED)


@pytest.mark.parametrize("perturbation", ["antithetic", "independent"])
def test_gaussian_directions_are_unbiased_whichever_way_they_are_paired(perturbation: str) -> None:
    full = build("full_es", perturbation={"perturbation": perturbation}, num_pairs=8)
    assert_unbiased(trajectories(full, 20_000, 1), SMOOTHED, narrow=0.05)


def test_backpropagation_through_the_whole_unroll_is_exact() -> None:
    result, _ = build("unrolled_backprop", **WHOLE).estimate(
        THETA, build("unrolled_backprop", **WHOLE).init(THETA, jax.random.key(0)), jax.random.key(0)
    )
    assert float(result.mean["rate"]) == pytest.approx(TRUE, rel=1e-5)
    assert float(result.meta_loss) == pytest.approx(mean_loss_of_windows(RATE, 0.0), rel=1e-5)


def test_backpropagation_through_windows_misses_what_truncation_misses() -> None:
    samples = trajectories(build("unrolled_backprop"), 2, HORIZON // WINDOW)
    np.testing.assert_allclose(samples, truncated_slope(RATE, 0.0), rtol=1e-4)


def test_without_second_derivatives_gradients_are_constants() -> None:
    """x_T = 1 − θ Σ g, the g constant: dL/dθ = −x_T Σ_t x_t, where the whole derivative is −T (1−θ)^(2T−1)."""
    fields = {**WHOLE, "aggregate": "final"}
    first, second = (
        float(trajectories(build("unrolled_backprop", second_derivatives=each, **fields), 1, 1)[0])
        for each in (False, True)
    )
    x = (1 - RATE) ** np.arange(HORIZON + 1)
    assert first == pytest.approx(-x[-1] * x[:-1].sum(), rel=1e-5)
    assert second == pytest.approx(-HORIZON * (1 - RATE) ** (2 * HORIZON - 1), rel=1e-5)


@pytest.mark.parametrize("name", ["full_es", "truncated_es", "persistent_es"])
def test_variance_falls_as_one_over_the_number_of_pairs(name: str) -> None:
    windows = 1 if name == "full_es" else HORIZON // WINDOW
    few, many = (
        trajectories(build(name, num_pairs=pairs), 3_000, windows, seed=1).var() for pairs in (2, 32)
    )
    assert few / many == pytest.approx(16, rel=0.25)


def test_the_combination_varies_less_than_either_part() -> None:
    combined = trajectories(build("combined", num_pairs=16, **WHOLE), 3_000, 1).var()
    evolved = trajectories(build("full_es", num_pairs=16), 3_000, 1).var()
    assert combined < 0.5 * evolved


def numbers(tree: object) -> list[np.ndarray]:
    """Returns all leaves, keys as their own numbers."""
    is_key = lambda leaf: jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_same_key_same_answer_vmapped_or_not(name: str) -> None:
    estimator = build(name, QuadraticFamily(spread=1.0), num_tasks=2)
    state = estimator.init(THETA, jax.random.key(9))
    keys = jax.random.split(jax.random.key(3), 3)
    run = jax.jit(lambda key: estimator.estimate(THETA, state, key)[0])
    one_by_one = [run(key) for key in keys]
    again = run(keys[0])
    for first, second in zip(numbers(one_by_one[0]), numbers(again), strict=True):
        np.testing.assert_array_equal(first, second)
    together = jax.vmap(run)(keys)
    np.testing.assert_allclose(together.mean["rate"], [r.mean["rate"] for r in one_by_one], rtol=2e-4)
    assert len({float(r.mean["rate"]) for r in one_by_one}) == 3


@pytest.mark.parametrize("name", STATEFUL)
def test_a_trajectory_goes_on_to_its_end_and_another_begins(name: str) -> None:
    """Horizon 12, windows of 5: 5, 5, 2, and again from the start; what came before matters only within one."""
    estimator = build(name, QuadraticFamily(spread=1.0), min_horizon=12, max_horizon=12)
    step = jax.jit(lambda state, key: estimator.estimate(THETA, state, key))
    state, windows, losses = estimator.init(THETA, jax.random.key(0)), [], []
    for key in jax.random.split(jax.random.key(1), 6):
        result, state = step(state, key)
        windows.append(int(result.metrics["window"]))
        losses.append(float(result.meta_loss))
    assert windows == [5, 5, 2, 5, 5, 2]
    assert losses[0] > losses[1] > losses[2] < losses[3]


@pytest.mark.parametrize("name", STATEFUL)
def test_a_first_trajectory_is_cut_at_random_and_a_later_one_is_not(name: str) -> None:
    estimator = build(name, stagger=True, unroll_length=HORIZON)
    step = jax.jit(lambda state, key: estimator.estimate(THETA, state, key))
    firsts, seconds = set(), set()
    for seed in range(8):
        first_key, second_key = jax.random.split(jax.random.key(seed))
        first, state = step(estimator.init(THETA, first_key), first_key)
        second, _ = step(state, second_key)
        firsts.add(int(first.metrics["window"]))
        seconds.add(int(second.metrics["window"]))
    assert len(firsts) > 4
    assert seconds == {HORIZON}


def test_jittered_windows_stay_within_their_range_and_end_with_the_horizon() -> None:
    estimator = build("truncated_es", unroll_length=10, length_jitter=0.2, min_horizon=40, max_horizon=40)
    step = jax.jit(lambda state, key: estimator.estimate(THETA, state, key))
    state, windows = estimator.init(THETA, jax.random.key(0)), []
    for key in jax.random.split(jax.random.key(1), 60):
        result, state = step(state, key)
        windows.append(int(result.metrics["window"]))
    ends = np.cumsum(windows)
    assert set(range(40, int(ends[-1]), 40)) <= set(ends.tolist())  # no window straddles an end
    inside = [w for w, end in zip(windows, ends, strict=True) if end % 40]
    assert min(inside) >= 8
    assert max(windows) <= 12
    assert len(set(inside)) >= 4


@pytest.mark.parametrize("carry", ["theta", "positive_twin"])
def test_what_truncated_es_carries_on(carry: str) -> None:
    """With σ = ½ the positive twin is somewhere else; theta's own state is where SGD at θ is."""
    estimator = build("truncated_es", carry=carry, sigma=0.5, num_pairs=1)
    _, state = estimator.estimate(THETA, estimator.init(THETA, jax.random.key(0)), jax.random.key(0))
    x = float(state.inner.task_state.params["x"][0, 0, 0])
    assert (x == pytest.approx((1 - RATE) ** WINDOW, rel=1e-5)) == (carry == "theta")


def test_merged_by_variance_hand_worked() -> None:
    """Half one: variances 2 and 8, means 1 and 12; half two: 8 and 2, means 2 and 21; the other's weigh.

    Half one takes 2 / (8 + 2) of back-propagation: 0.2 · 1 + 0.8 · 12 = 9.8; half two 0.8 · 2 + 0.2 · 21 = 5.8.
    """
    by_backprop = jnp.asarray([[0.0, 2.0], [0.0, 4.0]])
    by_evolution = jnp.asarray([[10.0, 14.0], [20.0, 22.0]])
    value, weight = merge_by_variance(by_backprop, by_evolution)
    np.testing.assert_allclose(weight, [0.2, 0.8], rtol=1e-6)
    assert float(value) == pytest.approx((9.8 + 5.8) / 2)


def test_an_exploding_sample_leaves_everything_to_the_evolution_strategy() -> None:
    by_backprop = jnp.asarray([[jnp.inf, 2.0], [0.0, 4.0]])
    value, weight = merge_by_variance(by_backprop, jnp.asarray([[10.0, 14.0], [20.0, 22.0]]))
    np.testing.assert_allclose(weight, [0.0, 0.0])
    assert float(value) == pytest.approx((12.0 + 21.0) / 2)


def test_a_half_that_explodes_is_left_to_the_evolution_strategy_whatever_the_other_says() -> None:
    """Beside a calm half, which would give it nearly all weight: variance 5e7 against evolution's 8 and 2."""
    by_backprop = jnp.asarray([[-5e3, 5e3], [2.0, 2.1]])
    value, weight = merge_by_variance(by_backprop, jnp.asarray([[10.0, 14.0], [20.0, 22.0]]))
    np.testing.assert_allclose(weight, [0.0, 0.0], atol=1e-6)
    assert float(value) == pytest.approx((12.0 + 21.0) / 2, rel=1e-5)


def test_gradients_that_are_not_finite_count_as_zero_and_are_counted() -> None:
    gradients = {"a": jnp.asarray([1.0, jnp.nan, 3.0]), "b": jnp.ones((3, 2))}
    clean, share = drop_not_finite(gradients)
    np.testing.assert_array_equal(clean["a"], [1.0, 0.0, 3.0])
    np.testing.assert_array_equal(clean["b"], [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    assert float(share) == pytest.approx(1 / 3)


def test_gradient_noise_is_the_standard_error_of_the_mean_over_tasks() -> None:
    """Tasks at 1, 3, 5 and 2, 2, 2: the standard error of the first is √(8/3 / 2), of the second zero."""
    config = ESTIMATORS["full_es"].model_validate({**BASE, **EVOLVED, "num_tasks": 3})
    mean, metrics = mean_over_tasks(config, {"a": jnp.asarray([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]])})
    np.testing.assert_allclose(mean["a"], [3.0, 2.0])
    assert float(metrics["gradient_noise"]) == pytest.approx(np.std([1, 3, 5], ddof=1) / np.sqrt(3))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("persistent_es", {"aggregate": "min"}, "needs losses that add up over windows, got aggregate='min'"),
        ("combined", {"num_pairs": 3}, "needs an even `num_pairs` of at least 4"),
        ("combined", {"difference_clip": 1.0}, "`difference_clip` must be None"),
        ("full_es", {"aggregate": "log_mean"}, "'log_mean' is a mean of logarithms"),
        ("truncated_es", {"min_horizon": 21}, "`min_horizon` must not exceed `max_horizon`, got 21 > 20"),
    ],
)
def test_impossible_configurations_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **changes)


def test_every_registered_estimator_is_in_this_contract() -> None:
    assert set(FIELDS) == set(ESTIMATORS)
    for name, config_type in ESTIMATORS.items():
        assert config_type.model_fields["estimator"].default == name
        assert issubclass(config_type, EvolutionConfig) == (name != "unrolled_backprop")
