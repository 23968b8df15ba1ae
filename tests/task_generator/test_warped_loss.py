"""Warped losses: each follows its formula and its inverse undoes it; gradients obey the chain rule."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.training_gradient import value_and_grad
from task_generator import TaskConfig
from task_generator.augmentations import SparseGradientsConfig, WarpedLossConfig
from task_generator.augmentations.warped_loss import EPSILON, WARPS, unwarp_loss, warp_loss
from task_generator.families.quadratics import QuadraticConfig

KEY = jax.random.key(0)
QUADRATIC = QuadraticConfig(dimension=6)
cases = pytest.mark.parametrize("name", WARPS)
LOSSES = np.concatenate([-np.logspace(3, -6, 40), [0.0], np.logspace(-6, 3, 40)]).astype(np.float32)
FORMULAS: dict[str, Any] = {
    "sqrt": lambda x: np.sqrt(x + EPSILON) - np.sqrt(EPSILON),
    "square": lambda x: x**2 + EPSILON * x,
    "log1p": np.log1p,
    "log": lambda x: np.log((x + EPSILON) / EPSILON),
}


def _tasks(name: str, *more: Any) -> tuple[Any, Any]:
    family = TaskConfig(family=QUADRATIC, augmentations=(*more, WarpedLossConfig(warp=name))).build()
    dynamic = jax.jit(family.sample_dynamic)(KEY)
    inner = TaskConfig(family=QUADRATIC, augmentations=more).build()
    return inner.task(dynamic), family.task(dynamic)


@cases
def test_warps_follow_their_formula_increase_and_keep_zero(name: str) -> None:
    values = np.asarray(warp_loss(name, jnp.asarray(LOSSES)))
    positive = LOSSES > 0
    np.testing.assert_allclose(
        values[positive], FORMULAS[name](LOSSES[positive].astype(np.float64)), rtol=1e-5
    )
    assert (np.diff(values) > 0).all()
    assert values[LOSSES == 0] == 0


@cases
def test_the_inverse_gives_the_loss_back(name: str) -> None:
    again = unwarp_loss(name, warp_loss(name, jnp.asarray(LOSSES)))
    np.testing.assert_allclose(again, LOSSES, rtol=2e-5)


@cases
def test_slopes_are_finite_positive_and_continuous_at_zero(name: str) -> None:
    slopes = np.asarray(jax.vmap(jax.grad(lambda x: warp_loss(name, x)))(jnp.asarray(LOSSES)))
    assert np.isfinite(slopes).all()
    assert (slopes > 0).all()
    left, right = (float(jax.grad(lambda x: warp_loss(name, x))(jnp.float32(x))) for x in (-1e-12, 1e-12))
    assert left == pytest.approx(right, rel=1e-4)


@cases
def test_gradients_follow_the_chain_rule(name: str) -> None:
    plain, warped = _tasks(name)
    state = plain.init(KEY)
    (loss, _), grads = value_and_grad(plain, state, KEY, ())
    (value, _), shown = value_and_grad(warped, state, KEY, ())
    assert float(value) == pytest.approx(float(FORMULAS[name](float(loss))), rel=1e-5)
    step = 1e-4 * float(loss)
    slope = (FORMULAS[name](float(loss) + step) - FORMULAS[name](float(loss) - step)) / (2 * step)
    np.testing.assert_allclose(shown["x"], slope * np.asarray(grads["x"]), rtol=1e-3)
    direct = jax.grad(lambda p: warped.loss(state._replace(params=p), KEY, ())[0])(state.params)
    np.testing.assert_allclose(shown["x"], direct["x"], rtol=1e-5)


@cases
def test_a_solution_counts_the_same_and_the_worst_stays_the_worst(name: str) -> None:
    plain, warped = _tasks(name)
    for loss in (0.0, 0.01, 3.0, 40.0):
        value = warp_loss(name, jnp.float32(loss))
        assert float(warped.normalize(value)) == pytest.approx(
            float(plain.normalize(jnp.float32(loss))), rel=2e-5
        )
    for worst in (np.nan, np.inf, 1e30):
        assert float(warped.normalize(jnp.float32(worst))) == 10.0


def test_what_an_inner_augmentation_shows_is_what_is_scaled() -> None:
    sparse, warped = _tasks("sqrt", SparseGradientsConfig(zero_probability=0.5))
    state = sparse.init(KEY)
    inner = np.asarray(value_and_grad(sparse, state, KEY, ())[1]["x"])
    outer = np.asarray(value_and_grad(warped, state, KEY, ())[1]["x"])
    assert 0 < (inner == 0).sum() < 6
    np.testing.assert_array_equal(inner == 0, outer == 0)


def test_the_prior_has_one_task_in_five_and_every_warp() -> None:
    rng = np.random.default_rng(0)
    drawn = [d for d in (WarpedLossConfig.sample(rng) for _ in range(1000)) if d is not None]
    assert abs(len(drawn) - 200) < 57  # 4.5 standard deviations of 12.6
    assert {d.warp for d in drawn} == set(WARPS)
