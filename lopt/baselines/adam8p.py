"""Adam8p: Adam with a penalty on the weights and two decays of the rate, eight numbers to search.

    g ← g + 2 ℓ₂ p + ℓ₁ sign(p)                    the gradient of loss + ℓ₂‖p‖² + ℓ₁‖p‖₁
    m ← β₁ m + (1 − β₁) g                          v ← β₂ v + (1 − β₂) g²
    p ← p − α · max(1 − λ_lin τ, 0) · exp(−λ_exp τ) · m̂ / (√(v̂ + 1e-10) + ε)

m̂ and v̂ are debiased; τ = s · 10 000/T after s of T updates, because the decays were searched on runs of 10 000. Two
details are those of [2], where [1] is silent: the 1e-10 under the root, and the range of ε.

[1] Metz et al. 2020, "Tasks, stability, architecture, and compute", App. D.
[2] Metz et al. 2020, "Using a thousand optimization tasks to learn hyperparameter search strategies" (TaskSet).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.baselines.log_uniform import log_uniform
from lopt.contract import require_params
from lopt.features.accumulators import update_ema
from lopt.types import Params, Scalar

NUM_TRIALS = 1_000
SEARCHED_STEPS = 10_000.0
EPSILON_UNDER_ROOT = 1e-10


class Adam8pSetting(NamedTuple):
    """One trial; all fields may be traced."""

    learning_rate: float | Scalar
    beta1: float | Scalar
    beta2: float | Scalar
    epsilon: float | Scalar
    l1: float | Scalar
    l2: float | Scalar
    linear_decay: float | Scalar
    """λ_lin, per step of a run of 10 000."""
    exponential_decay: float | Scalar
    """λ_exp, per step of a run of 10 000."""


class Adam8pState(NamedTuple):
    """Accumulators; trees like the parameters."""

    step: jax.Array  # [] int32: updates so far
    first_moment: Params
    second_moment: Params


def adam8p(setting: Adam8pSetting, num_steps: Scalar) -> optax.GradientTransformationExtraArgs:
    """Returns Adam8p for a run of `num_steps` updates; both arguments may be traced."""
    s = setting

    def init(params: Params) -> Adam8pState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Adam8pState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(
        grads: optax.Updates, state: Adam8pState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, Adam8pState]:
        del extra_args  # it reads no loss
        require_params("adam8p", params)
        grads = jax.tree.map(lambda g, p: g + 2.0 * s.l2 * p + s.l1 * jnp.sign(p), grads, params)
        m = jax.tree.map(lambda m, g: update_ema(m, g, s.beta1), state.first_moment, grads)
        v = jax.tree.map(lambda v, g: update_ema(v, jnp.square(g), s.beta2), state.second_moment, grads)
        t = state.step.astype(jnp.float32) + 1.0
        debias1, debias2 = (1.0 - jnp.float32(beta) ** t for beta in (s.beta1, s.beta2))
        scaled_step = state.step.astype(jnp.float32) * SEARCHED_STEPS / jnp.asarray(num_steps, jnp.float32)
        linear = jnp.maximum(1.0 - s.linear_decay * scaled_step, 0.0)
        rate = s.learning_rate * linear * jnp.exp(-s.exponential_decay * scaled_step)

        def descend(m: jax.Array, v: jax.Array) -> jax.Array:
            return -rate * (m / debias1) / (jnp.sqrt(v / debias2 + EPSILON_UNDER_ROOT) + s.epsilon)

        return jax.tree.map(descend, m, v), Adam8pState(state.step + 1, m, v)

    return optax.GradientTransformationExtraArgs(init, update)


def sample_adam8p(trial: int) -> Adam8pSetting:
    """Returns the setting of one trial of [2]'s random search, as Python numbers.

    All log-uniform: rate [1e-8, 10], 1 − β₁ [1e-4, 1], 1 − β₂ [1e-6, 1], ε [1e-10, 1e3], ℓ₁ and ℓ₂ [1e-8, 10],
    λ_lin [1e-7, 1e-4], λ_exp [1e-6, 1e-3].
    """
    rng = np.random.RandomState(trial)  # the order of the draws is part of the definition
    return Adam8pSetting(
        learning_rate=log_uniform(rng, 1e-8, 1e1),
        beta1=1.0 - log_uniform(rng, 1e-4, 1.0),
        beta2=1.0 - log_uniform(rng, 1e-6, 1.0),
        epsilon=log_uniform(rng, 1e-10, 1e3),
        l1=log_uniform(rng, 1e-8, 1e1),
        l2=log_uniform(rng, 1e-8, 1e1),
        linear_decay=log_uniform(rng, 1e-7, 1e-4),
        exponential_decay=log_uniform(rng, 1e-3, 1e-6),  # drawn downwards, as published
    )
