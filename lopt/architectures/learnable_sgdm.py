"""`learnable_sgdm`: gradient descent with momentum; the learning rate and the momentum are meta-learned.

    m ← μ·m + g,   φ ← φ − exp(θ₁)·m,   μ = 1 − exp(θ₂)

Theta holds the logarithm of 1 − μ, because 1/(1 − μ) is how far a gradient is carried: equal steps in theta change
the optimizer equally. As published, nothing keeps θ₂ below 0, where μ would be negative. See `learnable_sgd`.

[1] Metz et al. 2022, "Practical tradeoffs between memory, compute, and performance in learned optimizers".
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from lopt.contract import ArchitectureConfig, horizon
from lopt.rules.elementwise import StateDtype, bounded_gradients, cast_like, loaded, stored, zeros_like_all
from lopt.types import Params, PRNGKey, Scalar, Theta


class LearnableSgdmState(NamedTuple):
    """The state of one run."""

    progress: jax.Array  # scalar int32: updates so far
    velocity: Params  # a tree like the parameters, in the state's dtype


class LearnableSgdmConfig(ArchitectureConfig):
    """Where theta starts, and how the velocity is kept."""

    architecture: Literal["learnable_sgdm"] = "learnable_sgdm"
    initial_learning_rate: float = Field(0.01, gt=0)
    initial_momentum: float = Field(0.9, ge=0, lt=1)
    state_dtype: StateDtype = "float32"

    def build(self) -> LearnableSgdm:
        """Returns the optimizer."""
        return LearnableSgdm(self)


class LearnableSgdm:
    """The learned optimizer that a `LearnableSgdmConfig` describes."""

    reads_loss = False

    def __init__(self, config: LearnableSgdmConfig):
        self.config = config

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns theta, the same for every key: `log_learning_rate` and `log_one_minus_momentum`."""
        del key
        return {
            "log_learning_rate": jnp.log(jnp.float32(self.config.initial_learning_rate)),
            "log_one_minus_momentum": jnp.log(jnp.float32(1.0 - self.config.initial_momentum)),
        }

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation for `theta`: `optax.sgd(learning_rate, momentum)`.

        Its `update` needs neither parameters nor the loss.

        Raises:
          ValueError: If `num_steps` is not a whole number of at least 1. It changes nothing else.
        """
        horizon(num_steps)
        learning_rate = jnp.exp(theta["log_learning_rate"])
        momentum = -jnp.expm1(theta["log_one_minus_momentum"])
        dtype = self.config.state_dtype

        def init(params: Params) -> LearnableSgdmState:
            return LearnableSgdmState(jnp.zeros((), jnp.int32), zeros_like_all(params, dtype))

        def update(
            grads: optax.Updates, state: LearnableSgdmState, params: Any = None, **extra_args: Any
        ) -> tuple[optax.Updates, LearnableSgdmState]:
            del extra_args
            velocity = jax.tree.map(
                lambda g, v: g + momentum * v, bounded_gradients(grads), loaded(state.velocity)
            )
            updates = cast_like(jax.tree.map(lambda v: -learning_rate * v, velocity), grads, params)
            kept = stored(velocity, dtype, state.progress)
            return updates, LearnableSgdmState(state.progress + 1, kept)

        return optax.GradientTransformationExtraArgs(init, update)
