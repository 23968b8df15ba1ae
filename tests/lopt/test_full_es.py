"""Full ES against closed forms: a learned learning rate on a quadratic, whose meta-gradient is known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.estimators import ESTIMATORS
from lopt.estimators.full_es import FullEs, FullEsConfig
from lopt.lanes import init_lanes, repeat_dynamics, sample_dynamics
from lopt.lengths import LogUniformConfig
from tests.support.learned_rate import LearnedRate, QuadraticFamily


def estimator(**changes: Any) -> FullEs:
    base: dict[str, Any] = {
        "sigma": 0.02,
        "min_horizon": 10,
        "max_horizon": 10,
        "num_tasks": 2,
        "num_pairs": 256,
        "num_final_batches": 1,
        "meta_loss_scale": "linear",
    }
    return FullEsConfig(**{**base, **changes}).build(QuadraticFamily(), LearnedRate())


def smoothed_gradient(rate: float, sigma: float, steps: int) -> float:
    """d/dθ of E[½(1 − (θ + σε))^2T] at θ: the Gaussian average of −T(1 − θ)^(2T − 1), by quadrature.

    Steps multiply x by (1 − θ), so the final loss is ½ (1 − θ)^2T.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    values = -steps * (1.0 - (rate + sigma * nodes)) ** (2 * steps - 1)
    return float(np.sum(weights * values) / np.sqrt(2 * np.pi))


def test_unbiased_for_the_smoothed_loss() -> None:
    es = estimator()
    theta = {"rate": jnp.float32(0.1)}
    estimates = jax.vmap(lambda k: es.estimate(theta, (), k)[0].mean["rate"])(
        jax.random.split(jax.random.key(0), 200)
    )
    mean, error = float(jnp.mean(estimates)), float(jnp.std(estimates) / np.sqrt(estimates.size))
    expected = smoothed_gradient(0.1, 0.02, 10)
    assert error < 0.01 * abs(expected)  # the interval is narrow enough to mean something
    assert abs(mean - expected) < 3.5 * error, (mean, expected, error)


def test_variance_falls_with_the_number_of_pairs() -> None:
    theta = {"rate": jnp.float32(0.1)}

    def variance(num_pairs: int) -> float:
        es = estimator(num_pairs=num_pairs)
        keys = jax.random.split(jax.random.key(1), 400)
        return float(jnp.var(jax.vmap(lambda k: es.estimate(theta, (), k)[0].mean["rate"])(keys)))

    ratio = variance(2) / variance(32)
    assert 16 / 1.5 < ratio < 16 * 1.5


def test_same_key_same_answer_and_other_key_another() -> None:
    es = estimator(num_pairs=4)
    theta = {"rate": jnp.float32(0.1)}
    first, again, other = (es.estimate(theta, (), jax.random.key(k))[0].mean["rate"] for k in (3, 3, 4))
    assert float(first) == float(again) != float(other)


def test_zero_sigma_measures_theta_itself() -> None:
    es = estimator()
    result = es.measure({"rate": jnp.float32(0.1)}, jax.random.key(0), jnp.float32(0.0))
    np.testing.assert_allclose(result.meta_loss, 0.5 * 0.9**20, rtol=1e-5)
    assert float(result.mean["rate"]) == 0.0
    assert float(result.num_inner_steps) == 2 * 2 * 256 * 10


def test_divergence_is_a_number_and_is_counted() -> None:
    es = estimator(loss_cap=10.0, min_horizon=60, max_horizon=60)
    result, _ = es.estimate({"rate": jnp.float32(1e6)}, (), jax.random.key(0))
    assert float(result.meta_loss) == 10.0
    assert float(result.metrics["fraction_at_cap"]) == 1.0
    assert float(result.mean["rate"]) == 0.0


def test_difference_clip_bounds_a_diverging_twin() -> None:
    theta = {"rate": jnp.float32(1.9)}  # σ carries one twin over the edge of stability at 2
    free = estimator(num_pairs=64, sigma=0.5, max_horizon=40).estimate(theta, (), jax.random.key(0))[0]
    held = estimator(num_pairs=64, sigma=0.5, max_horizon=40, difference_clip=0.1).estimate(
        theta, (), jax.random.key(0)
    )[0]
    assert abs(float(held.mean["rate"])) < 0.1 * abs(float(free.mean["rate"]))
    assert float(held.mean["rate"]) > 0


def test_unit_norm_makes_every_task_count_alike() -> None:
    one = estimator(num_tasks=1, num_pairs=16, task_normalization="unit_norm")
    gradient = one.estimate({"rate": jnp.float32(0.1)}, (), jax.random.key(0))[0].mean["rate"]
    assert abs(float(gradient)) == pytest.approx(1.0, rel=1e-5)


def test_log_scale_weighs_relative_improvements() -> None:
    linear = estimator(meta_loss_scale="linear").estimate({"rate": jnp.float32(0.1)}, (), jax.random.key(0))[
        0
    ]
    log = estimator(meta_loss_scale="log").estimate({"rate": jnp.float32(0.1)}, (), jax.random.key(0))[0]
    loss = 0.5 * 0.9**20
    assert float(log.mean["rate"] / linear.mean["rate"]) == pytest.approx(1 / (loss + 1e-3), rel=0.1)


def test_horizons_are_log_uniform_and_include_both_ends() -> None:
    draws = np.asarray(
        jax.vmap(lambda k: LogUniformConfig().sample(k, 2, 8))(jax.random.split(jax.random.key(0), 8_000))
    )
    assert (draws.min(), draws.max()) == (2, 8)
    expected = np.log(np.arange(3, 10) / np.arange(2, 9)) / np.log(9 / 2)
    seen = np.bincount(draws, minlength=9)[2:] / draws.size
    np.testing.assert_allclose(seen, expected, atol=4 * np.sqrt(0.25 / draws.size))


def test_lanes_share_what_selects_code_and_vary_the_rest() -> None:
    family = QuadraticFamily(spread=1.0)
    dynamics = repeat_dynamics(family, sample_dynamics(family, jax.random.key(0), 3), 2)
    assert dynamics.start.shape == ()
    assert dynamics.curvature.shape == (6,)
    assert len(np.unique(dynamics.curvature)) == 3
    np.testing.assert_array_equal(dynamics.curvature[0::2], dynamics.curvature[1::2])
    states = init_lanes(family, dynamics, jax.random.split(jax.random.key(1), 6))
    np.testing.assert_allclose(states.params["x"], jnp.full((6, 1), dynamics.start))


def test_impossible_horizons_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`min_horizon` must not exceed `max_horizon`, got 20 > 10"):
        estimator(min_horizon=20)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_registered_estimators_know_their_name(name: str) -> None:
    assert ESTIMATORS[name].model_fields["estimator"].default == name
