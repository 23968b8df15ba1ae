"""The gradient as seen along a few random directions: noise like that of evolution strategies, for less.

    1/K · Σₖ (g·dₖ) dₖ        or, ignoring the magnitude,        1/K · Σₖ sign(g·dₖ) dₖ,        ‖dₖ‖ = 1

Directions are uniform on the sphere in the space of all P parameters, and fresh in every step. The first form has
the expectation g/P: like the paper, this doesn't make up for P. One direction at a time is in memory.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.5, item 6. The release sums where the paper averages; this averages.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from pydantic import Field

from lopt.config import FrozenConfig
from lopt.training_gradient import LossAndGradient, value_and_grad
from lopt.types import Batch, PRNGKey, Scalar, Task, TaskState
from task_generator.augmentations.wrapped import WrappedTask, WrappingConfig, cast_like, own_key, to_float32
from task_generator.distributions import Distribution, LogUniformInt


class Coin(FrozenConfig):
    """True or False, equally likely. (A `Categorical` would read them as numbers.)"""

    def sample(self, rng: np.random.Generator) -> bool:
        """Returns one draw."""
        return bool(rng.integers(2))

    def contains(self, value: object) -> bool:
        """Returns whether `value` is one of the two."""
        return isinstance(value, bool)


class SubsampledDirectionsConfig(WrappingConfig):
    """`num_directions` directional derivatives, or only their signs."""

    augmentation: Literal["subsampled_directions"] = "subsampled_directions"
    num_directions: int = Field(ge=1, le=65536, description="Random directions per gradient.")
    ignore_magnitude: bool = Field(description="Whether only the derivative's sign counts.")

    probability: ClassVar[float] = 0.08

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the paper's ranges."""
        return {
            "num_directions": LogUniformInt(low=1, high=1024),
            "ignore_magnitude": Coin(),
        }

    def wrap(self, task: Task) -> Task:
        """Returns the task with subsampled gradients."""
        return SubsampledDirectionsTask(self, task)

    def label(self) -> str:
        """Returns e.g. "32 directions" or "32 signed directions"."""
        signed = "signed " * self.ignore_magnitude
        return f"{self.num_directions} {signed}direction{'s' * (self.num_directions > 1)}"


def average_direction(gradient: jax.Array, key: PRNGKey, count: int, *, ignore_magnitude: bool) -> jax.Array:
    """Returns the average of (g·d)d, or of sign(g·d)d, over `count` random unit vectors d.

    Args:
      gradient: g, float32 [P].
      key: Determines the directions.
      count: How many.
      ignore_magnitude: Whether only the sign of g·d counts.
    """

    def add(index: Scalar, total: jax.Array) -> jax.Array:
        normal = jax.random.normal(jax.random.fold_in(key, index), gradient.shape, jnp.float32)
        # Floored, because of a single parameter a draw may be zero.
        unit = normal * jax.lax.rsqrt(jnp.maximum(jnp.vdot(normal, normal), 1e-30))
        derivative = jnp.vdot(gradient, unit)
        return total + (jnp.sign(derivative) if ignore_magnitude else derivative) * unit

    return jax.lax.fori_loop(0, count, add, jnp.zeros_like(gradient)) / count


class SubsampledDirectionsTask(WrappedTask[SubsampledDirectionsConfig]):
    """A task whose gradients are seen along random directions."""

    def value_and_grad(self, state: TaskState, key: PRNGKey, batch: Batch) -> LossAndGradient:
        """Returns the inner task's loss and next state, and the average over this step's directions."""
        result, grads = value_and_grad(self.inner, state, key, batch)
        flat, unravel = ravel_pytree(to_float32(grads))
        config = self.config
        average = average_direction(
            flat,
            own_key(key, config.augmentation),
            config.num_directions,
            ignore_magnitude=config.ignore_magnitude,
        )
        return result, cast_like(unravel(average), grads)
