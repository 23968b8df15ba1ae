"""Priors of fields: ranges with both ends, the stated shares, exact supports, and nonsense refused."""

from __future__ import annotations

import numpy as np
import pytest

from task_generator.distributions import (
    Categorical,
    Distribution,
    LogUniform,
    LogUniformInt,
    Uniform,
    UniformInt,
)


@pytest.mark.parametrize(
    "prior",
    [
        Uniform(low=-1, high=2),
        LogUniform(low=0.001, high=1000),
        UniformInt(low=0, high=4),
        LogUniformInt(low=4, high=512),
        Categorical(values=("a", "b"), weights=(0.25, 0.75)),
    ],
)
def test_draws_lie_in_the_support(prior: Distribution) -> None:
    rng = np.random.default_rng(0)
    assert all(prior.contains(prior.sample(rng)) for _ in range(500))


def test_integer_ranges_include_both_ends() -> None:
    rng = np.random.default_rng(0)
    assert {LogUniformInt(low=2, high=5).sample(rng) for _ in range(200)} == {2, 3, 4, 5}
    assert {UniformInt(low=0, high=2).sample(rng) for _ in range(100)} == {0, 1, 2}


def test_log_uniform_int_puts_equal_mass_on_equal_ratios() -> None:
    # P(n < 8) over 4 … 31 is ln(8/4) / ln(32/4) = 1/3; the standard error of 3000 draws is 0.009.
    rng = np.random.default_rng(1)
    draws = np.array([LogUniformInt(low=4, high=31).sample(rng) for _ in range(3000)])
    assert np.mean(draws < 8) == pytest.approx(1 / 3, abs=0.035)


def test_log_uniform_has_its_median_at_the_geometric_mean() -> None:
    rng = np.random.default_rng(2)
    draws = [LogUniform(low=0.01, high=100).sample(rng) for _ in range(3000)]
    assert np.mean(np.array(draws) < 1) == pytest.approx(0.5, abs=0.04)


def test_weights_are_followed_and_a_zero_weight_is_outside_the_support() -> None:
    prior = Categorical(values=("never", "always"), weights=(0, 1))
    assert {prior.sample(np.random.default_rng(s)) for s in range(20)} == {"always"}
    assert prior.contains("always")
    assert not prior.contains("never")


@pytest.mark.parametrize("weights", [(0.5, 0.6), (0.5,), (1.5, -0.5)])
def test_weights_that_are_no_probabilities_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="`weights`"):
        Categorical(values=("a", "b"), weights=weights)


def test_a_reversed_range_is_refused() -> None:
    with pytest.raises(ValueError, match="`low` must not exceed `high`, got low=3, high=2"):
        UniformInt(low=3, high=2)


def test_supports_are_exact() -> None:
    assert not LogUniformInt(low=8, high=128).contains(129)
    assert not LogUniformInt(low=8, high=128).contains(8.5)
    assert not UniformInt(low=0, high=1).contains(True)
    assert not LogUniform(low=1, high=2).contains(2.1)
