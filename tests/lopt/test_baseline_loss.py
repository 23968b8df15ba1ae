"""What a baseline reaches on a task: the best of Adam's learning rates, by hand."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.baseline_loss import LEARNING_RATES, measure_baseline_loss
from tests.support.learned_rate import Curvature, QuadraticFamily, QuadraticTask

HORIZON = 12


@pytest.fixture(autouse=True, scope="module")
def optax_promotes() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"):
        yield


def adam_by_hand(rate: float, steps: int) -> float:
    """Returns ½ x² after `steps` of Adam from x = 1, float64."""
    x, first, second = 1.0, 0.0, 0.0
    for t in range(1, steps + 1):
        first, second = 0.9 * first + 0.1 * x, 0.999 * second + 0.001 * x * x
        x -= rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return 0.5 * x * x


@pytest.mark.parametrize("horizon", [3, HORIZON])
def test_it_is_the_least_final_loss_of_all_rates(horizon: int) -> None:
    finals = [adam_by_hand(rate, horizon) for rate in LEARNING_RATES]
    found = measure_baseline_loss(QuadraticFamily(), horizon=horizon, split="train", cap=10.0)
    assert found == pytest.approx(min(finals), rel=1e-3)  # float32 of a small number
    assert found < 0.5 * sorted(finals)[1]  # the rates differ: another one would be noticed


def test_divergence_is_the_cap() -> None:
    class NeverFinite(QuadraticTask):
        def normalize(self, loss: jax.Array) -> jax.Array:
            return loss * jnp.nan

    class Diverging(QuadraticFamily):
        def task(self, dynamic: Curvature) -> QuadraticTask:
            return NeverFinite(dynamic)

    assert measure_baseline_loss(Diverging(), horizon=HORIZON, split="outer_valid", cap=7.0) == 7.0
