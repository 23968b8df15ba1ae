"""Lengths of unrolls and windows: distributions in closed form, schedules at every step, nothing compiled twice."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.estimators import ESTIMATORS, validation_estimator
from lopt.lengths import LENGTHS, ExponentialConfig, LengthsConfig
from lopt.outer_schedule import END_OF_SCHEDULE, PiecewiseLinear
from tests.support.learned_rate import LearnedRate, QuadraticFamily

DRAWS = 20_000
THETA = {"rate": jnp.float32(0.3)}
FIELDS: dict[str, Any] = {
    "num_tasks": 1,
    "num_final_batches": 1,
    "meta_loss_scale": "linear",
    "aggregate": "mean",
    "sigma": 0.03,
    "num_pairs": 4,
    "stagger": False,
}


def make(name: str, scale: float = 20.0) -> LengthsConfig:
    return LENGTHS[name].model_validate({"scale": scale} if name == "exponential" else {})


def shares(name: str, low: int, high: int, scale: float = 20.0) -> np.ndarray:
    """Returns the probabilities of low, low + 1, …, high, from the formulas in the docstrings, in float64."""
    edges = np.arange(low, high + 2, dtype=np.float64)
    match name:
        case "log_uniform":
            below = np.log(edges / low) / np.log((high + 1) / low)
        case "uniform":
            below = (edges - low) / (high + 1 - low)
        case "exponential":
            below = np.expm1(-(edges - low) / scale) / np.expm1(-(high + 1 - low) / scale)
    return np.diff(below)


@pytest.mark.parametrize("name", sorted(LENGTHS))
@pytest.mark.parametrize(("low", "high"), [(1, 6), (10, 100)])
def test_lengths_are_drawn_as_the_formula_says(name: str, low: int, high: int) -> None:
    """Every length's frequency within five standard errors of its probability, traced ends or not."""
    draw = jax.vmap(make(name).sample, in_axes=(0, None, None))
    keys = jax.random.split(jax.random.key(0), DRAWS)
    draws = np.asarray(draw(keys, low, high))
    np.testing.assert_array_equal(draws, jax.jit(draw)(keys, jnp.int32(low), jnp.int32(high)))
    expected = shares(name, low, high)
    assert expected.sum() == pytest.approx(1.0)
    assert (draws.min(), draws.max()) == (low, high)
    seen = np.bincount(draws - low, minlength=expected.size) / DRAWS
    error = np.sqrt(expected * (1 - expected) / DRAWS)
    assert np.all(np.abs(seen - expected) < 5 * error)


@pytest.mark.parametrize("name", sorted(LENGTHS))
def test_quantiles_and_means_are_exact(name: str) -> None:
    """The length at u is the k with P(< k) ≤ u < P(≤ k)."""
    config, expected = make(name), shares(name, 10, 100)
    middles = np.cumsum(expected) - expected / 2
    drawn = np.floor(np.asarray(config.quantile(jnp.float32(middles), 10, 100)))
    np.testing.assert_array_equal(drawn, np.arange(10, 101))
    mean = np.sum(expected * np.arange(10, 101))
    assert float(config.mean(10, 100)) == pytest.approx(mean, rel=0.01)


def test_the_tail_is_heavy_and_cut_at_the_end_of_the_range() -> None:
    """Wichrowska's windows: 50 + Exp(200). The median is far below the mean; one in 150 is longer than 1 050."""
    config = ExponentialConfig(scale=200.0)
    median = float(config.quantile(jnp.float32(0.5), 50, 100_000))
    assert median == pytest.approx(50 + 200 * np.log(2), rel=1e-4)
    assert float(config.mean(50, 100_000)) == pytest.approx(249.5, rel=0.02)
    expected = shares("exponential", 50, 100_000, 200.0)
    assert expected[1000:].sum() == pytest.approx(np.exp(-5), rel=1e-6)
    assert int(config.quantile(jnp.float32(1 - 1e-6), 50, 300)) <= 300


PIECES = PiecewiseLinear(points=((10, 20.0), (60, 20.0), (100, 200.0), (1000, 2000.0)))


def closed_form(step: float) -> float:
    """PIECES by hand."""
    if step <= 60:
        return 20.0
    if step <= 100:
        return 20.0 + 4.5 * (step - 60)
    return min(200.0 + 2.0 * (step - 100), 2000.0)


def test_schedules_are_straight_lines_between_their_points() -> None:
    steps = np.arange(1200)
    expected = np.array([closed_form(step) for step in steps])
    np.testing.assert_allclose(jax.jit(jax.vmap(PIECES.at))(jnp.asarray(steps)), expected, rtol=1e-6)
    np.testing.assert_allclose(PIECES.values(1200), expected)
    linear = PiecewiseLinear.linear(50, 10_000, num_steps=5000)  # Metz et al. 2018, 4.3
    np.testing.assert_allclose(linear.at(jnp.int32(2500)), 5025.0)
    constant = PiecewiseLinear(points=((0, 7.0),))
    assert {float(constant.at(step)) for step in (0, 5, END_OF_SCHEDULE)} == {7.0}
    assert float(PIECES.at(END_OF_SCHEDULE)) == PIECES.last == 2000.0
    assert PIECES.ends_at == 1000


def test_stretched_schedules_reach_the_same_values_later_or_sooner() -> None:
    assert PIECES.stretched(old=1500, new=3000).points == (
        (20, 20.0),
        (120, 20.0),
        (200, 200.0),
        (2000, 2000.0),
    )
    assert PIECES.stretched(old=1500, new=15).points == ((0, 20.0), (1, 200.0), (10, 2000.0))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ((), "at least one point"),
        (((5, 1.0), (5, 2.0)), r"ascend from 0 on, got steps \[5, 5\]"),
        (((-1, 1.0),), "ascend from 0 on"),
        (((0, 0.0),), "must be positive"),
    ],
)
def test_impossible_schedules_are_refused(points: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PiecewiseLinear(points=points)


def build(name: str, **fields: Any) -> Any:
    known = {key: value for key, value in (FIELDS | fields).items() if key in ESTIMATORS[name].model_fields}
    return ESTIMATORS[name].model_validate(known)


GROWING = PiecewiseLinear.linear(2, 12, num_steps=10)


def test_a_growing_horizon_is_what_the_schedule_says_and_compiles_once() -> None:
    """At every outer step the drawn horizon is the limit, until it has grown past the horizon itself."""
    config = build("full_es", min_horizon=10, max_horizon=10, horizon_limit=GROWING)
    estimator = config.build(QuadraticFamily(), LearnedRate())
    traces = []

    @jax.jit
    def estimate(key: jax.Array, outer_step: jax.Array) -> jax.Array:
        traces.append(1)
        return estimator.estimate(THETA, (), key, outer_step)[0].metrics["horizon"]

    key = jax.random.key(0)
    seen = [int(estimate(key, jnp.int32(step))) for step in range(13)]
    assert seen == [2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10, 10]
    assert int(estimate(key, jnp.int32(END_OF_SCHEDULE))) == 10
    assert len(traces) == 1
    default = estimator.estimate(THETA, (), key)[0]
    assert int(default.metrics["horizon"]) == 10


def test_a_growing_range_of_horizons_is_drawn_log_uniformly_at_every_step() -> None:
    """The range of [4, 64] is [4, 16] where the limit is 16."""
    config = build(
        "full_es", min_horizon=4, max_horizon=64, horizon_limit=PiecewiseLinear(points=((0, 16), (9, 64)))
    )
    from lopt.estimators.evolution import draw_horizon

    draw = jax.jit(jax.vmap(lambda key, step: draw_horizon(config, key, step), in_axes=(0, None)))
    draws = np.asarray(draw(jax.random.split(jax.random.key(3), DRAWS), jnp.int32(0)))
    expected = shares("log_uniform", 4, 16)
    seen = np.bincount(draws - 4, minlength=13) / DRAWS
    assert np.all(np.abs(seen - expected) < 5 * np.sqrt(expected * (1 - expected) / DRAWS))


@pytest.mark.parametrize(
    "name",
    [
        "truncated_es",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in sorted(set(ESTIMATORS) - {"full_es", "truncated_es"})
        ),
    ],
)
def test_windows_grow_with_the_outer_step_in_one_program(name: str) -> None:
    """Windows of 2, 3, 4, … in a horizon of 12, which the third cuts short: one trace for all of them."""
    config = build(name, min_horizon=12, max_horizon=12, unroll_length=12, unroll_limit=GROWING)
    estimator = config.build(QuadraticFamily(), LearnedRate())
    traces = []

    @jax.jit
    def estimate(state: Any, key: jax.Array, outer_step: jax.Array) -> Any:
        traces.append(1)
        result, state = estimator.estimate(THETA, state, key, outer_step)
        return result.metrics["window"], state

    state, seen = estimator.init(THETA, jax.random.key(0)), []
    for step in range(8):
        window, state = estimate(state, jax.random.key(step), jnp.int32(step))
        seen.append(int(window))
    assert seen == [2, 3, 4, 3, 6, 6, 8, 4]  # 12 = 2 + 3 + 4 + 3 = 6 + 6 = 8 + 4
    assert len(traces) == 1


def test_jitter_is_around_what_the_schedule_says() -> None:
    """Metz et al. 2018: a length from a line, shifted by up to 20 %. Mean and spread are those of the formula."""
    limit = PiecewiseLinear.linear(50, 1000, num_steps=100)
    config = build(
        "truncated_es",
        min_horizon=5000,
        max_horizon=5000,
        unroll_length=1000,
        unroll_limit=limit,
        length_jitter=0.2,
    )
    unroller = config.build(QuadraticFamily(), LearnedRate()).unroller
    start = unroller.ended({"rate": jnp.zeros(())}, copies=1)._replace(
        stop=jnp.int32(5000), step=jnp.int32(0)
    )
    end = jax.jit(jax.vmap(lambda key, step: unroller.window_end(start, key, step), in_axes=(0, None)))
    for step, length in ((0, 50), (40, 430), (100, 1000), (150, 1000)):
        draws = np.asarray(end(jax.random.split(jax.random.key(step), DRAWS), jnp.int32(step)), np.float64)
        assert round(0.8 * length) <= draws.min() <= draws.max() <= round(1.2 * length)
        deviation = 0.4 * length / np.sqrt(12)
        assert abs(draws.mean() - length) < 5 * deviation / np.sqrt(DRAWS)
        assert draws.std() == pytest.approx(deviation, rel=0.03)


def test_windows_are_heavy_tailed_where_they_are_drawn_so() -> None:
    tail = {"lengths": "exponential", "scale": 5.0}
    config = build(
        "truncated_es",
        min_horizon=10_000,
        max_horizon=10_000,
        unroll_length=40,
        min_unroll_length=3,
        window_lengths=tail,
    )
    unroller = config.build(QuadraticFamily(), LearnedRate()).unroller
    start = unroller.ended({"rate": jnp.zeros(())}, copies=1)._replace(
        stop=jnp.int32(10_000), step=jnp.int32(0)
    )
    end = jax.vmap(lambda key: unroller.window_end(start, key, 0))
    draws = np.asarray(end(jax.random.split(jax.random.key(1), DRAWS)))
    expected = shares("exponential", 3, 40, 5.0)
    seen = np.bincount(draws - 3, minlength=38) / DRAWS
    assert np.all(np.abs(seen - expected) <= 5 * np.sqrt(expected * (1 - expected) / DRAWS) + 1 / DRAWS)
    assert float(unroller.mean_length(0)) == pytest.approx(draws.mean(), rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"horizon_limit": GROWING, "max_horizon": 20},
            "`horizon_limit` must grow to `max_horizon` = 20 or beyond, got 12",
        ),
        ({"unroll_limit": GROWING, "unroll_length": 15}, "`unroll_limit` must grow to `unroll_length` = 15"),
        ({"min_unroll_length": 3, "length_jitter": 0.2}, "both say how lengths vary"),
        ({"min_unroll_length": 9}, "`min_unroll_length` must not exceed `unroll_length`, got 9 > 5"),
        ({"window_lengths": {"lengths": "exponential"}}, "scale"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("truncated_es", **{"min_horizon": 5, "max_horizon": 10, "unroll_length": 5, **changes})


def test_validations_run_the_whole_horizon() -> None:
    config = build("truncated_es", min_horizon=10, max_horizon=10, unroll_length=5, horizon_limit=GROWING)
    whole = validation_estimator(config)
    assert whole.horizon_limit == GROWING
    result, _ = whole.build(QuadraticFamily(), LearnedRate()).estimate(THETA, (), jax.random.key(0))
    assert int(result.metrics["horizon"]) == 10
