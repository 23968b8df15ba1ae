"""Sparse gradients: the stated share of entries is zero, the rest is as it was, and so is the loss."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from lopt.training_gradient import value_and_grad
from task_generator import TaskConfig
from task_generator.augmentations import SparseGradientsConfig
from task_generator.families.quadratics import QuadraticConfig

KEY = jax.random.key(0)
QUADRATIC = QuadraticConfig(dimension=20)


def _tasks(probability: float) -> tuple[Any, Any]:
    config = SparseGradientsConfig(zero_probability=probability)
    family = TaskConfig(family=QUADRATIC, augmentations=(config,)).build()
    dynamic = jax.jit(family.sample_dynamic)(KEY)
    return QUADRATIC.build().task(dynamic), family.task(dynamic)


@pytest.mark.parametrize("probability", [0.5, 0.9, 0.99])
def test_the_stated_share_of_entries_is_zero_and_the_rest_is_untouched(probability: float) -> None:
    plain, sparse = _tasks(probability)
    state = plain.init(KEY)
    dense = np.asarray(value_and_grad(plain, state, KEY, ())[1]["x"])
    assert (dense != 0).all()
    steps = 1000
    shown = np.asarray(
        jax.jit(lambda keys: jax.lax.map(lambda k: value_and_grad(sparse, state, k, ())[1]["x"], keys))(
            jax.random.split(KEY, steps)
        )
    )
    zero = shown == 0
    # Sums of twenty numbers up to 50, added up in another order.
    np.testing.assert_allclose(shown, np.where(zero, 0.0, dense), rtol=1e-5, atol=5e-5)
    deviation = np.sqrt(probability * (1 - probability))
    assert abs(zero.mean() - probability) < 4.5 * deviation / np.sqrt(zero.size)
    # Every entry has its turn, and they do not go together.
    assert (np.abs(zero.mean(axis=0) - probability) < 5 * deviation / np.sqrt(steps)).all()
    assert np.abs(np.corrcoef(zero.T) - np.eye(20)).max() < 6 / np.sqrt(steps)


def test_the_loss_is_unchanged() -> None:
    plain, sparse = _tasks(0.9)
    state = plain.init(KEY)
    assert float(sparse.loss(state, KEY, ())[0]) == float(plain.loss(state, KEY, ())[0])
    assert float(value_and_grad(sparse, state, KEY, ())[0][0]) == float(plain.loss(state, KEY, ())[0])


def test_the_prior_has_one_task_in_five() -> None:
    rng = np.random.default_rng(0)
    draws = [SparseGradientsConfig.sample(rng) for _ in range(1000)]
    drawn = [draw for draw in draws if draw is not None]
    assert abs(len(drawn) - 200) < 57  # 4.5 standard deviations of 12.6
    assert {draw.zero_probability for draw in drawn} == {0.5, 0.9, 0.99}
    assert all(draw.could_sample() for draw in drawn)
    assert not SparseGradientsConfig(zero_probability=0.7).could_sample()
