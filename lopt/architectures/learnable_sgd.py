"""`learnable_sgd`: gradient descent whose learning rate is meta-learned. Theta is one number.

    φ ← φ − exp(θ)·g

The smallest learned optimizer there is: a check of every meta-gradient estimator, and, being cheap and vmappable
over theta, what tasks of training an optimizer train. The rate is constant, so the number of steps is not used.

[1] Metz et al. 2022, "Practical tradeoffs between memory, compute, and performance in learned optimizers"
    (learnable hyper-parameters, logarithmic parametrisation).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from lopt.contract import ArchitectureConfig, horizon
from lopt.rules.elementwise import bounded_gradients, cast_like
from lopt.types import PRNGKey, Scalar, Theta


class LearnableSgdState(NamedTuple):
    """Gradient descent remembers nothing."""


class LearnableSgdConfig(ArchitectureConfig):
    """Where theta starts."""

    architecture: Literal["learnable_sgd"] = "learnable_sgd"
    initial_learning_rate: float = Field(0.01, gt=0)

    def build(self) -> LearnableSgd:
        """Returns the optimizer."""
        return LearnableSgd(self)


class LearnableSgd:
    """The learned optimizer that a `LearnableSgdConfig` describes."""

    reads_loss = False

    def __init__(self, config: LearnableSgdConfig):
        self.config = config

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns theta, the same for every key: `log_learning_rate`."""
        del key
        return {"log_learning_rate": jnp.log(jnp.float32(self.config.initial_learning_rate))}

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation for `theta`: `optax.sgd(exp(theta["log_learning_rate"]))`.

        Its `update` needs neither parameters nor the loss.

        Raises:
          ValueError: If `num_steps` is not a whole number of at least 1. It changes nothing else.
        """
        horizon(num_steps)
        learning_rate = jnp.exp(theta["log_learning_rate"])

        def update(
            grads: optax.Updates, state: LearnableSgdState, params: Any = None, **extra_args: Any
        ) -> tuple[optax.Updates, LearnableSgdState]:
            del extra_args
            updates = jax.tree.map(lambda g: -learning_rate * g, bounded_gradients(grads))
            return cast_like(updates, grads, params), state

        return optax.GradientTransformationExtraArgs(lambda params: LearnableSgdState(), update)
