"""NAdamW with a warm-up, a plateau and a cosine: one optimizer that contains most others, and its search space.

    g ← g + λ₂ p            m ← β₁ m + (1 − β₁) g            v ← β₂ v + (1 − β₂) g²
    a = η(s) √(1 − β₂ᵗ) / (1 − β₁ᵗ)                            s = t − 1 updates so far
    p ← p − a · (n / (√v + ε) + λ p),     n = m, or β₁ m + (1 − β₁) g with Nesterov

The search space and its sampler are those of [1]; the thousand points of seeds 0 to 999 are the "1 000 NAdamW
trials" of [2] and, ordered, OptList (`opt_list`).

What was published differs from the above in two ways. λ₂ was subtracted, so that the "decay" makes weights grow.
And [3] lets a warm-up last as long as max(warm-up, plateau), so that the 516 points with one, however short, rise
until the cosine begins. `RELEASED` is that form, needed to reproduce [2]'s curves; `CORRECTED` is the default.
The published code of [1], on whose curves the list was chosen, subtracts λ₂, takes the shorter warm-up, and draws
`use_nesterov` without passing it on.

[1] Metz et al. 2020, "Using a thousand optimization tasks to learn hyperparameter search strategies", App. C.2.
[2] Metz et al. 2022, "VeLO", Sec. 4.1.1.
[3] google/learned_optimization (Apache-2.0), which [2] was run with.
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

SAMPLER_OFFSET = 14_358
"""Added to a trial's number to get its seed."""
NUM_TRIALS = 1_000


class NAdamWSetting(NamedTuple):
    """One trial; all fields may be traced."""

    learning_rate: float | Scalar = 1e-4
    """η, reached at the end of the warm-up."""
    beta1: float | Scalar = 0.9
    beta2: float | Scalar = 0.999
    epsilon: float | Scalar = 1e-8
    use_nesterov: bool | Scalar = True
    adamw_weight_decay: float | Scalar = 0.0
    """λ, decoupled from the moments; multiplied by the debiased rate a."""
    l2_weight_decay: float | Scalar = 0.0
    """λ₂, part of the gradient."""
    warmup_fraction: float | Scalar = 0.0
    """Of the run; the rate starts at exactly 0 where this is not 0."""
    min_learning_rate_mult: float | Scalar = 1.0
    """Where the cosine ends, as a fraction of η."""
    constant_fraction: float | Scalar = 1.0
    """Of the run: where the cosine begins. The warm-up is part of it."""


class NAdamWForm(NamedTuple):
    """Which of the forms that have been in use."""

    l2_sign: float
    """+1 where λ₂ shrinks the weights."""
    warmup_outlasts_plateau: bool
    """Whether a warm-up lasts max(warm-up, plateau) instead of min."""


CORRECTED = NAdamWForm(l2_sign=1.0, warmup_outlasts_plateau=False)
RELEASED = NAdamWForm(l2_sign=-1.0, warmup_outlasts_plateau=True)


class NAdamWState(NamedTuple):
    """Accumulators; trees like the parameters."""

    step: jax.Array  # [] int32: updates so far
    first_moment: Params
    second_moment: Params


def nadamw(
    setting: NAdamWSetting, num_steps: Scalar, *, form: NAdamWForm = CORRECTED
) -> optax.GradientTransformationExtraArgs:
    """Returns NAdamW for a run of `num_steps` updates.

    Args:
      setting: The hyper-parameters; may be traced.
      num_steps: Updates of the run; may be traced. The schedule stays at its end beyond it.
      form: `CORRECTED`, or `RELEASED` for the published curves.
    """

    def init(params: Params) -> NAdamWState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return NAdamWState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(
        grads: optax.Updates, state: NAdamWState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, NAdamWState]:
        del extra_args  # it reads no loss
        require_params("nadamw", params)
        s = setting
        grads = jax.tree.map(lambda g, p: g + form.l2_sign * s.l2_weight_decay * p, grads, params)
        m = jax.tree.map(lambda m, g: update_ema(m, g, s.beta1), state.first_moment, grads)
        v = jax.tree.map(lambda v, g: update_ema(v, jnp.square(g), s.beta2), state.second_moment, grads)
        t = state.step.astype(jnp.float32) + 1.0
        rate = learning_rate(s, state.step, num_steps, form=form)
        rate = rate * jnp.sqrt(1.0 - jnp.float32(s.beta2) ** t) / (1.0 - jnp.float32(s.beta1) ** t)
        nesterov = jnp.asarray(s.use_nesterov).astype(jnp.bool_)

        def descend(g: jax.Array, m: jax.Array, v: jax.Array, p: jax.Array) -> jax.Array:
            numerator = jnp.where(nesterov, update_ema(m, g, s.beta1), m)
            return -rate * (numerator / (jnp.sqrt(v) + s.epsilon) + s.adamw_weight_decay * p)

        return jax.tree.map(descend, grads, m, v, params), NAdamWState(state.step + 1, m, v)

    return optax.GradientTransformationExtraArgs(init, update)


def learning_rate(
    setting: NAdamWSetting, step: Scalar, num_steps: Scalar, *, form: NAdamWForm = CORRECTED
) -> Scalar:
    """Returns the rate after `step` updates: a linear rise, the plateau η, then a cosine to its minimum."""
    peak = jnp.asarray(setting.learning_rate, jnp.float32)
    total = jnp.asarray(num_steps, jnp.float32)
    now = jnp.minimum(jnp.asarray(step, jnp.float32), total)
    plateau_end = setting.constant_fraction * total
    # A plateau over the whole run leaves no cosine, and 0/0.
    progress = jnp.maximum(now - plateau_end, 0.0) / jnp.maximum(total - plateau_end, 1e-6)
    floor = setting.min_learning_rate_mult * peak
    decayed = floor + (peak - floor) * (0.5 + 0.5 * jnp.cos(jnp.pi * progress))
    longer_or_shorter = jnp.maximum if form.warmup_outlasts_plateau else jnp.minimum
    fraction = longer_or_shorter(jnp.float32(setting.warmup_fraction), jnp.float32(setting.constant_fraction))
    warmup = jnp.where(jnp.asarray(setting.warmup_fraction) > 0.0, fraction * total, 0.0)
    return jnp.where(now < warmup, peak * now / jnp.maximum(warmup, 1e-6), decayed)


def sample_nadamw(trial: int) -> NAdamWSetting:
    """Returns the setting of one trial of the published random search, as Python numbers.

    Rate [1e-5, 1], 1 − β₁ [1e-3, 1], 1 − β₂ [1e-5, 1] and ε [1e-8, 1e4] are log-uniform, Nesterov is a coin; the
    decoupled decay, λ₂ or both are log-uniform in [1e-5, 0.1]; warm-up [1e-5, 0.1] and minimum [1e-5, 1] are
    log-uniform or, half of the time, 0; the plateau is uniform.
    """
    rng = np.random.RandomState(trial + SAMPLER_OFFSET)  # the order of the draws is part of the definition
    rate = log_uniform(rng, 1e-5, 1.0)
    beta1 = 1.0 - log_uniform(rng, 1e-3, 1.0)
    beta2 = 1.0 - log_uniform(rng, 1e-5, 1.0)
    epsilon = log_uniform(rng, 1e-8, 1e4)
    nesterov = rng.uniform() > 0.5
    which = rng.uniform()
    decoupled = log_uniform(rng, 1e-5, 1e-1) if not 0.3333 <= which < 0.6666 else 0.0
    l2 = log_uniform(rng, 1e-5, 1e-1) if which >= 0.3333 else 0.0
    warmup = log_uniform(rng, 1e-5, 1e-1) if rng.uniform() > 0.5 else 0.0
    minimum = 0.0 if rng.uniform() > 0.5 else log_uniform(rng, 1e-5, 1.0)
    return NAdamWSetting(
        learning_rate=rate,
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        use_nesterov=bool(nesterov),
        adamw_weight_decay=decoupled,
        l2_weight_decay=l2,
        warmup_fraction=warmup,
        min_learning_rate_mult=minimum,
        constant_fraction=float(rng.uniform()),
    )
