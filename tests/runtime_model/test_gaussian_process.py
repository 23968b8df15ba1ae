"""The process against its closed form, and its gradient against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from runtime_model.gaussian_process import CONSTANT, _Objective, fit_gaussian_process


def _data(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, 3))
    return rows, np.sin(2 * rows[:, 0]) + 0.5 * rows[:, 1] + 0.1 * rng.normal(size=count)


def _fit(rows: np.ndarray, targets: np.ndarray) -> object:
    return fit_gaussian_process(rows, targets, typical_length=np.full(3, 1.5), weight=np.ones(3))


def test_the_gradient_of_the_log_posterior_is_right() -> None:
    objective = _Objective(*_data(), np.full(3, 1.5), np.ones(3))
    for seed in range(3):
        point = objective.prior_mean + 0.5 * np.random.default_rng(seed).normal(size=6)
        error = check_grad(lambda x: objective(x)[0], lambda x: objective(x)[1], point)
        assert error < 1e-4 * np.linalg.norm(objective(point)[1])


def test_prediction_is_the_textbooks() -> None:
    """Mean and variance by dense inverses, Rasmussen & Williams eq. 2.25 and 2.26."""
    rows, targets = _data()
    fitted = fit_gaussian_process(rows, targets, typical_length=np.full(3, 1.5), weight=np.ones(3))
    smooth, linear, noise = fitted.scales**2

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        distance = (((a[:, None] - b[None]) / fitted.length) ** 2).sum(axis=-1)
        covariance: np.ndarray = smooth * np.exp(-0.5 * distance) + linear * a @ b.T + CONSTANT
        return covariance

    at = np.random.default_rng(1).normal(size=(7, 3))
    centre, spread = targets.mean(), targets.std()
    inverse = np.linalg.inv(kernel(rows, rows) + (noise + 1e-8) * np.eye(len(rows)))
    mean = kernel(at, rows) @ inverse @ ((targets - centre) / spread) * spread + centre
    explained = np.einsum("ij,jk,ik->i", kernel(at, rows), inverse, kernel(at, rows))
    std = np.sqrt(np.diag(kernel(at, at)) - explained + noise) * spread
    predicted = fitted.predict(at)
    np.testing.assert_allclose(predicted[0], mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(predicted[1], std, rtol=1e-6)


def test_a_column_without_influence_gets_a_long_length() -> None:
    rows, targets = _data(120)
    fitted = fit_gaussian_process(rows, targets, typical_length=np.full(3, 1.5), weight=np.ones(3))
    assert fitted.length[0] < fitted.length[2]
    mean, std = fitted.predict(rows)
    assert np.abs(mean - targets).mean() < 0.15
    assert fitted.predict(rows + 50.0)[1].min() > std.max()  # far away it knows less


def test_constant_targets_and_one_column_do_not_break_it() -> None:
    rows = np.linspace(-1, 1, 12)[:, None]
    fitted = fit_gaussian_process(rows, np.ones(12), typical_length=np.ones(1), weight=np.ones(1))
    assert fitted.predict(rows)[0] == pytest.approx(np.ones(12))
