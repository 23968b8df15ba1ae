"""Warped losses: the same minima, another steepness over the course of learning.

"Monotonic transformations (such as raising to a power) to the final loss" [1]. With ε = 10⁻⁶, which keeps the slope
at zero finite, a loss ℓ ≥ 0 becomes

    sqrt      √(ℓ + ε) − √ε                square    ℓ² + ε ℓ
    log1p     log(1 + ℓ)                   log       log(1 + ℓ / ε)

and a negative one is multiplied by the slope at zero, so that every warp is increasing on the whole line, keeps
zero where it is and has a continuous derivative. Gradients follow by the chain rule, from whatever the inner task
shows in training. The normalised loss is that of the loss before the warp: a solution counts the same.

The text names powers only; "log" is the release's, up to the name. The share of problems is ours: one task in five.
A change of the parameters' scale, the paper's other transformation, is the augmentation `reparametrize`.

[1] Wichrowska et al. 2017 (arXiv:1703.04813), Section 4.1.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.registry import lookup
from lopt.training_gradient import LossAndGradient, value_and_grad
from lopt.types import Batch, PRNGKey, Scalar, Task, TaskState
from task_generator.augmentations.wrapped import WrappedTask, WrappingConfig
from task_generator.distributions import Categorical, Distribution

EPSILON = 1e-6


class Warp(NamedTuple):
    """An increasing function of losses that are not negative, its inverse, and its slope at zero."""

    forward: Callable[[jax.Array], jax.Array]
    inverse: Callable[[jax.Array], jax.Array]
    slope: float


_ROOT = math.sqrt(EPSILON)
WARPS: dict[str, Warp] = {
    # The first two are written without the difference of nearly equal numbers.
    "sqrt": Warp(lambda x: x / (jnp.sqrt(x + EPSILON) + _ROOT), lambda y: y * (y + 2 * _ROOT), 0.5 / _ROOT),
    "square": Warp(
        lambda x: x * (x + EPSILON),
        lambda y: 2.0 * y / (EPSILON + jnp.sqrt(EPSILON**2 + 4.0 * y)),
        EPSILON,
    ),
    "log1p": Warp(jnp.log1p, jnp.expm1, 1.0),
    "log": Warp(lambda x: jnp.log1p(x / EPSILON), lambda y: EPSILON * jnp.expm1(y), 1 / EPSILON),
}

if TYPE_CHECKING:
    WarpName = str
else:  # the names are the table's keys
    WarpName = Literal[tuple(WARPS)]


def warp_loss(name: str, loss: Scalar) -> Scalar:
    """Returns the warped loss; differentiable everywhere, with no infinity from the branch that is not taken."""
    warp = lookup(WARPS, name, kind="warp")
    return jnp.where(loss > 0, warp.forward(jnp.maximum(loss, 0.0)), warp.slope * loss)


def unwarp_loss(name: str, warped: Scalar) -> Scalar:
    """Returns the loss that was warped."""
    warp = lookup(WARPS, name, kind="warp")
    return jnp.where(warped > 0, warp.inverse(jnp.maximum(warped, 0.0)), warped / warp.slope)


class WarpedLossConfig(WrappingConfig):
    """An increasing function is applied to the loss."""

    augmentation: Literal["warped_loss"] = "warped_loss"
    warp: WarpName = Field(description="Which function.")

    probability: ClassVar[float] = 0.2

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the prior of the function."""
        return {"warp": Categorical(values=tuple(WARPS))}

    def wrap(self, task: Task) -> Task:
        """Returns the task with warped losses."""
        return WarpedLossTask(self, task)

    def label(self) -> str:
        """Returns e.g. "sqrt of the loss"."""
        return f"{self.warp} of the loss"


class WarpedLossTask(WrappedTask[WarpedLossConfig]):
    """A task with a warped loss."""

    def loss(self, state: TaskState, key: PRNGKey, batch: Batch) -> tuple[Scalar, TaskState]:
        """Returns the inner task's loss, warped."""
        loss, after = self.inner.loss(state, key, batch)
        return warp_loss(self.config.warp, loss), after

    def value_and_grad(self, state: TaskState, key: PRNGKey, batch: Batch) -> LossAndGradient:
        """Returns the warped loss, and the gradient that the inner task shows times the warp's slope there."""
        (loss, after), grads = value_and_grad(self.inner, state, key, batch)
        warped, slope = jax.value_and_grad(lambda x: warp_loss(self.config.warp, x))(loss)
        return (warped, after), jax.tree.map(lambda g: g * slope.astype(g.dtype), grads)

    def normalize(self, loss: Scalar) -> Scalar:
        """Returns the inner task's normalised loss before the warp."""
        return self.inner.normalize(unwarp_loss(self.config.warp, loss))
