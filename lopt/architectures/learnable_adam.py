"""`learnable_adam`: Adam whose four hyper-parameters are meta-learned.

    φ ← φ − α · m̂ / (√(v̂ + ε₀) + ε),     θ = (log α, log(1 − β₁), log(1 − β₂), log ε)

The decays are learned through the logarithm of 1 − β (see `learnable_sgdm`). The state keeps the corrected
averages and their weights, so that theta may change in mid-run, as it does between the windows of a truncated
unroll.

Two forms:
- `LearnableAdamConfig()`: ε₀ = 0, Adam as published and as `optax.adam` has it.
- `LearnableAdamConfig.released()`: ε₀ = 10⁻⁸ besides ε, which the released code adds without saying so. For
  gradients below 10⁻⁴ it is what the denominator consists of.
Deviation: the root's derivative is 0 at v̂ = 0, so a gradient of zero has a finite meta-gradient in both forms.

[1] Kingma & Ba 2015, "Adam".
[2] Metz et al. 2022, "Practical tradeoffs between memory, compute, and performance in learned optimizers".
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from lopt.contract import ArchitectureConfig, horizon
from lopt.rules.elementwise import (
    StateDtype,
    bounded_gradients,
    cast_like,
    loaded,
    move,
    moving_rate,
    next_weight,
    safe_ratio,
    safe_root,
    stored,
    zeros_like_all,
)
from lopt.types import Params, PRNGKey, Scalar, Theta


class LearnableAdamState(NamedTuple):
    """The state of one run."""

    progress: jax.Array  # scalar int32: updates so far
    mean: Params  # m̂ and v̂: trees like the parameters, in the state's dtype
    mean_square: Params
    mean_weight: jax.Array  # total weights of the two averages: scalars, float32
    mean_square_weight: jax.Array


class LearnableAdamConfig(ArchitectureConfig):
    """Where theta starts; ε₀, which is not learned; and how the averages are kept."""

    architecture: Literal["learnable_adam"] = "learnable_adam"
    initial_learning_rate: float = Field(1e-3, gt=0)
    initial_beta1: float = Field(0.9, ge=0, lt=1)
    initial_beta2: float = Field(0.999, ge=0, lt=1)
    initial_epsilon: float = Field(1e-8, gt=0)
    epsilon_root: float = Field(0.0, ge=0)
    """ε₀, under the root."""
    state_dtype: StateDtype = "float32"

    @classmethod
    def released(cls) -> LearnableAdamConfig:
        """Returns the configuration that reproduces the released optimizer."""
        return cls(epsilon_root=1e-8)

    def build(self) -> LearnableAdam:
        """Returns the optimizer."""
        return LearnableAdam(self)


class LearnableAdam:
    """The learned optimizer that a `LearnableAdamConfig` describes."""

    reads_loss = False

    def __init__(self, config: LearnableAdamConfig):
        self.config = config

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns theta, the same for every key: four numbers."""
        del key
        c = self.config
        return {
            "log_learning_rate": jnp.log(jnp.float32(c.initial_learning_rate)),
            "log_one_minus_beta1": jnp.log(jnp.float32(1.0 - c.initial_beta1)),
            "log_one_minus_beta2": jnp.log(jnp.float32(1.0 - c.initial_beta2)),
            "log_epsilon": jnp.log(jnp.float32(c.initial_epsilon)),
        }

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation for `theta`: `optax.adam(α, β₁, β₂, ε, eps_root=ε₀)`.

        Its `update` needs neither parameters nor the loss.

        Raises:
          ValueError: If `num_steps` is not a whole number of at least 1. It changes nothing else.
        """
        horizon(num_steps)
        learning_rate, fast, slow, epsilon = (
            jnp.exp(theta[name])
            for name in ("log_learning_rate", "log_one_minus_beta1", "log_one_minus_beta2", "log_epsilon")
        )
        epsilon_root, dtype = self.config.epsilon_root, self.config.state_dtype

        def init(params: Params) -> LearnableAdamState:
            return LearnableAdamState(
                progress=jnp.zeros((), jnp.int32),
                mean=zeros_like_all(params, dtype),
                mean_square=zeros_like_all(params, dtype),
                mean_weight=jnp.zeros((), jnp.float32),
                mean_square_weight=jnp.zeros((), jnp.float32),
            )

        def update(
            grads: optax.Updates, state: LearnableAdamState, params: Any = None, **extra_args: Any
        ) -> tuple[optax.Updates, LearnableAdamState]:
            del extra_args
            bounded = bounded_gradients(grads)
            weights = next_weight(state.mean_weight, fast), next_weight(state.mean_square_weight, slow)
            rates = moving_rate(weights[0], fast), moving_rate(weights[1], slow)
            mean = jax.tree.map(lambda m, g: move(m, g, rates[0]), loaded(state.mean), bounded)
            mean_square = jax.tree.map(
                lambda v, g: move(v, jnp.square(g), rates[1]), loaded(state.mean_square), bounded
            )
            updates = jax.tree.map(
                lambda m, v: -learning_rate * safe_ratio(m, safe_root(v + epsilon_root) + epsilon),
                mean,
                mean_square,
            )
            return cast_like(updates, grads, params), LearnableAdamState(
                progress=state.progress + 1,
                mean=stored(mean, dtype, state.progress),
                mean_square=stored(mean_square, dtype, state.progress),
                mean_weight=weights[0],
                mean_square_weight=weights[1],
            )

        return optax.GradientTransformationExtraArgs(init, update)
