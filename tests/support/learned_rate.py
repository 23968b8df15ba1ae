"""A problem whose meta-gradients have closed forms: SGD whose rate is θ, on ½ x² from x₀ = 1.

Steps multiply x by 1 − θ, so the loss before step t is ½ (1 − θ)^2t. Perturbed by σε in every window of K steps,
what is expected of a power is the moment M(n) = E[(1 − θ − σε)^n], and windows multiply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.types import PRNGKey, Scalar, Split, TaskState

RATE, HORIZON, WINDOW = 0.1, 20, 5


class Curvature(NamedTuple):
    """Of a quadratic, and where it starts."""

    curvature: jax.Array
    start: jax.Array


class QuadraticTask:
    """½ a x², started at x₀; no noise."""

    def __init__(self, dynamic: Curvature):
        self.dynamic = dynamic

    def init(self, key: PRNGKey) -> TaskState:
        return TaskState({"x": self.dynamic.start[None]})

    def batch(self, key: PRNGKey, split: Split = "train") -> jax.Array:
        return jnp.zeros((1,))

    def loss(self, state: TaskState, key: PRNGKey, batch: jax.Array) -> tuple[Scalar, TaskState]:
        return 0.5 * self.dynamic.curvature * jnp.sum(jnp.square(state.params["x"])), state

    def normalize(self, loss: Scalar) -> Scalar:
        return loss


class QuadraticFamily:
    """`start` is one value per work unit, `curvature` one per task."""

    def __init__(self, spread: float = 0.0):
        self.spread = spread

    def sample_dynamic(self, key: PRNGKey) -> Curvature:
        a, b = jax.random.uniform(key, (2,))
        return Curvature(1.0 + self.spread * a, 1.0 + self.spread * b)

    def dynamic_axes(self) -> Any:
        return Curvature(0, None)

    def task(self, dynamic: Curvature) -> QuadraticTask:
        return QuadraticTask(dynamic)


class LearnedRate:
    """SGD whose rate is θ."""

    reads_loss = False

    def init_theta(self, key: PRNGKey) -> Any:
        return {"rate": jnp.float32(RATE)}

    def transform(self, theta: Any, *, num_steps: Any) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(
            optax.stateless(lambda grads, params: jax.tree.map(lambda g: -theta["rate"] * g, grads))
        )


def moment(power: int, rate: float, sigma: float) -> float:
    """Returns E[(1 − θ − σε)^power] by quadrature, exact for polynomials of this degree."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    return float(np.sum(weights * (1.0 - rate - sigma * nodes) ** power) / np.sqrt(2 * np.pi))


def slope(fn: Callable[[float], float], at: float = RATE) -> float:
    """Returns the derivative by a fourth-order central difference in float64."""
    h = 1e-4
    return (8 * (fn(at + h) - fn(at - h)) - (fn(at + 2 * h) - fn(at - 2 * h))) / (12 * h)


def mean_loss_of_windows(rate: float, sigma: float, window: int = WINDOW) -> float:
    """Returns E of the unroll's mean loss where every window is perturbed by itself (PES)."""
    inside = sum(0.5 * moment(2 * j, rate, sigma) for j in range(window))
    return sum(moment(2 * window, rate, sigma) ** w * inside for w in range(HORIZON // window)) / HORIZON


def final_loss_of_windows(rate: float, sigma: float, window: int = WINDOW) -> float:
    """Returns E of the final loss where every window is perturbed by itself."""
    return 0.5 * moment(2 * window, rate, sigma) ** (HORIZON // window)


def truncated_slope(rate: float, sigma: float) -> float:
    """Returns the mean over windows of each one's own derivative, its start being given (truncated ES)."""
    inside = slope(lambda r: sum(0.5 * moment(2 * j, r, sigma) for j in range(WINDOW)) / WINDOW, rate)
    starts = [(1.0 - rate) ** (2 * WINDOW * w) for w in range(HORIZON // WINDOW)]
    return inside * float(np.mean(starts))
