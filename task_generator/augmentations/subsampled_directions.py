"""The gradient as seen along a few random directions: noise like that of evolution strategies, for less.

    1/K · Σₖ (g·dₖ) dₖ        or, ignoring the magnitude,        1/K · Σₖ sign(g·dₖ) dₖ,        ‖dₖ‖ = 1

Directions are uniform on the sphere in the space of all P parameters, and fresh in every step. The first form has
the expectation g/P: like the paper, this doesn't make up for P.

No direction is drawn whole, since K·P normal numbers would cost more than the task. A direction's cosine to g is
drawn from its distribution; what is at right angles to g is a random walk of K steps in P − 1 dimensions, whose
length is drawn step by step and whose end lies anywhere with equal probability. O(K + P), and exact.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.5, item 6. The release sums where the paper averages; this averages.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from pydantic import Field

from lopt.training_gradient import LossAndGradient, value_and_grad
from lopt.types import Batch, PRNGKey, Task, TaskState
from task_generator.augmentations.wrapped import WrappedTask, WrappingConfig, cast_like, own_key, to_float32
from task_generator.distributions import Categorical, Distribution, LogUniformInt


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
            "ignore_magnitude": Categorical(values=(False, True)),
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
    angle_key, end_key = jax.random.split(key)
    largest = jnp.max(jnp.abs(gradient))
    rescaled = gradient / jnp.where(largest > 0, largest, 1.0)  # its norm neither over- nor underflows
    unit = rescaled / jnp.maximum(jnp.linalg.norm(rescaled), 1.0)

    # In P dimensions a direction's angle to g, in P - 1 that of the walk's step to the walk so far.
    (cosine, turn), (sine, _) = random_angles(angle_key, count, (gradient.size, gradient.size - 1))
    weight = jnp.sign(cosine) if ignore_magnitude else cosine
    along = jnp.sum(weight * cosine)
    across = walk_length(weight * sine, turn)

    normal = jax.random.normal(end_key, gradient.shape, jnp.float32)
    normal = normal - jnp.vdot(unit, normal) * unit
    # Floored, because of a single parameter nothing is left. (And then `across` is zero.)
    end = across * jax.lax.rsqrt(jnp.maximum(jnp.vdot(normal, normal), 1e-30)) * normal
    scale = jnp.where(largest > 0, 1.0, 0.0) if ignore_magnitude else jnp.linalg.norm(rescaled) * largest
    return scale / count * (along * unit + end)


def random_angles(key: PRNGKey, count: int, dimensions: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Returns cosines and sines of the angles between a given vector and random ones.

    float32 [len(dimensions), count] each. In one dimension, or none, the vectors are parallel or opposite. One call
    for all dimensions, because the gamma distribution's sampler takes more than a second to compile.
    """
    normal_key, rest_key = jax.random.split(key)
    one = jax.random.normal(normal_key, (len(dimensions), count), jnp.float32)
    others = jnp.array([[max(n - 1.0, 0.0)] for n in dimensions], jnp.float32)
    drawn = jax.random.chisquare(rest_key, jnp.maximum(others, 1.0), one.shape, jnp.float32)
    rest = jnp.where(others > 0, drawn, 0.0)  # the other coordinates' squares
    inverse = jax.lax.rsqrt(jnp.maximum(jnp.square(one) + rest, 1e-30))
    return one * inverse, jnp.sqrt(rest) * inverse


def walk_length(steps: jax.Array, turns: jax.Array) -> jax.Array:
    """Returns how far a walk gets in `steps`, each at an angle of cosine `turns` to the walk so far."""

    def walk(length: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        size, turn = step
        squared = jnp.square(length) + jnp.square(size) + 2 * length * size * turn
        return jnp.sqrt(jnp.maximum(squared, 0.0)), None

    return jax.lax.scan(walk, jnp.zeros(()), (steps, turns))[0]


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
