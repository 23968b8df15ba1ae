"""Exact Gaussian-process regression whose hyper-parameters come from the marginal likelihood.

    k(x, y) = smooth² · exp(−½ Σ_d (x_d − y_d)² / length_d²) + linear² · Σ_d weight_d x_d y_d + CONSTANT,  noise² I

The linear part extrapolates (cost is close to a product of powers); the smooth part bends it where overheads
take over; a length per column says how much the column matters. Every hyper-parameter has a log-normal prior,
which is what carries a fit of a few dozen rows; the rest is L-BFGS on the posterior, float64.

[1] Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, eq. 2.25, 2.26, 5.8 and 5.9.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

CONSTANT = 4.0
JITTER = 1e-8
MAX_ITERATIONS = 80
SCALE_PRIORS = {"smooth": (0.5, 0.5), "linear": (0.3, 1.0), "noise": (0.5, 0.5)}
"""Median and standard deviation of the logarithm; of targets with unit variance."""
LENGTH_STD = 0.6
"""Standard deviation of a length's logarithm."""
BOUND = 5.0
"""Standard deviations of the prior within which the search stays."""


class GaussianProcess(NamedTuple):
    """A fitted process: N rows of D standardised columns."""

    rows: np.ndarray  # [N, D]
    length: np.ndarray  # [D]
    weight: np.ndarray  # [D], of the linear part
    scales: np.ndarray  # [3]: smooth, linear and noise, of targets with unit variance
    target: np.ndarray  # [2]: mean and standard deviation of the targets
    coefficients: np.ndarray  # [N]
    factor: np.ndarray  # [N, N], lower Cholesky factor of the covariance

    def predict(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and standard deviation [n], noise included, at standardised rows [n, D]."""
        smooth, linear, noise = self.scales**2
        cross = smooth * np.exp(-0.5 * _squared_distances(rows / self.length, self.rows / self.length))
        cross += linear * (rows * self.weight) @ self.rows.T + CONSTANT
        mean, spread = self.target
        explained = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)
        prior = smooth + linear * (rows**2 * self.weight).sum(axis=1) + CONSTANT
        variance = np.maximum(prior - (explained**2).sum(axis=0), 0.0) + noise
        return cross @ self.coefficients * spread + mean, np.sqrt(variance) * spread


def fit_gaussian_process(
    rows: np.ndarray, targets: np.ndarray, *, typical_length: np.ndarray, weight: np.ndarray
) -> GaussianProcess:
    """Fits all hyper-parameters.

    Args:
      rows: [N, D], standardised.
      targets: [N].
      typical_length: [D], the medians of the lengths' priors.
      weight: [D], of the linear part.
    """
    mean, spread = targets.mean(), max(float(targets.std()), 1e-6)
    standardised = (targets - mean) / spread
    objective = _Objective(rows, standardised, typical_length, weight)
    start = objective.prior_mean
    bounds = list(zip(start - BOUND * objective.prior_std, start + BOUND * objective.prior_std, strict=True))
    found = minimize(
        objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": MAX_ITERATIONS}
    )
    length, scales = objective.unpack(found.x)
    covariance, _ = objective.covariance(length, scales)
    factor = np.linalg.cholesky(covariance)
    return GaussianProcess(
        rows=rows,
        length=length,
        weight=weight,
        scales=scales,
        target=np.asarray([mean, spread]),
        coefficients=cho_solve((factor, True), standardised),
        factor=factor,
    )


class _Objective:
    """The negative log posterior of the hyper-parameters' logarithms, and its gradient."""

    def __init__(
        self, rows: np.ndarray, targets: np.ndarray, typical_length: np.ndarray, weight: np.ndarray
    ) -> None:
        self.targets = targets
        self.differences = np.square(rows.T[:, :, None] - rows.T[:, None, :])  # [D, N, N]
        self.linear = (rows * weight) @ rows.T
        medians, stds = zip(*SCALE_PRIORS.values(), strict=True)
        self.prior_mean = np.log(np.concatenate([typical_length, medians]))
        self.prior_std = np.concatenate([np.full(len(typical_length), LENGTH_STD), stds])

    def unpack(self, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the lengths [D] and the scales [3]."""
        values = np.exp(logs)
        return values[:-3], values[-3:]

    def covariance(self, length: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the covariance of the targets [N, N], and its smooth part."""
        smooth, linear, noise = scales**2
        exponent = np.tensordot(1.0 / length**2, self.differences, axes=1)
        part = smooth * np.exp(-0.5 * exponent)
        identity = np.eye(len(self.targets))
        return part + linear * self.linear + CONSTANT + (noise + JITTER) * identity, part

    def __call__(self, logs: np.ndarray) -> tuple[float, np.ndarray]:
        length, scales = self.unpack(logs)
        covariance, smooth = self.covariance(length, scales)
        try:
            factor = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:  # far outside of what is plausible
            return 1e10, np.zeros_like(logs)
        inverse = cho_solve((factor, True), np.eye(len(self.targets)))
        coefficients = inverse @ self.targets
        surprise = (logs - self.prior_mean) / self.prior_std
        value = (
            0.5 * self.targets @ coefficients + np.log(np.diagonal(factor)).sum() + 0.5 * surprise @ surprise
        )
        outer = inverse - np.outer(coefficients, coefficients)
        weighted = outer * smooth
        by_length = 0.5 * np.tensordot(self.differences, weighted, axes=2) / length**2
        by_scale = [
            weighted.sum(),
            scales[1] ** 2 * (outer * self.linear).sum(),
            scales[2] ** 2 * np.trace(outer),
        ]
        return float(value), np.concatenate([by_length, by_scale]) + surprise / self.prior_std


def _squared_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2.0 * left @ right.T
    return np.maximum(squares, 0.0)
