"""What optimizers that treat every parameter alike share: bounded gradients, averages whose decay may change.

An exponential moving average that is corrected for its zero start divides by the total weight of what it has seen,
1 − βⁿ while β is constant. Where β changes from step to step, the weight is an average of ones, w ← β·w + (1 − β),
and the corrected average moves by the fraction (1 − β)/w towards the new value: the first value is taken whole,
late ones by 1 − β. Decays are given as 1 − β, which is what float32 resolves when β is nearly 1.

[1] Kingma & Ba 2015, "Adam" (the correction, for constant decays).
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lopt.features.rounding import store

StateDtype = Literal["float32", "bfloat16"]
"""Of accumulators between steps: bfloat16 halves them (see `lopt.features.rounding`)."""

MAX_GRADIENT = 1e15
"""Gradients are clipped here only so that their square stays finite in float32."""


def bounded_gradients(grads: Any) -> Any:
    """Returns the gradients' tree in float32, clipped elementwise to ±`MAX_GRADIENT`; a NaN stays one."""
    return jax.tree.map(lambda g: jnp.clip(jnp.asarray(g, jnp.float32), -MAX_GRADIENT, MAX_GRADIENT), grads)


def zeros_like_all(params: Any, dtype: StateDtype) -> Any:
    """Returns zeros like every tensor: a tree of the parameters' shapes in `dtype`, whatever theirs."""
    return jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), dtype), params)


def loaded(accumulators: Any) -> Any:
    """Returns stored accumulators, a tree, in float32."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), accumulators)


def stored(accumulators: Any, dtype: StateDtype, salt: ArrayLike) -> Any:
    """Returns float32 accumulators as they are kept until the next step; `salt` is the step's number, a scalar."""
    return jax.tree.map(lambda x: store(x, dtype, salt), accumulators)


def cast_like(updates: Any, grads: Any, params: Any) -> Any:
    """Returns the updates in the parameters' dtypes; in those of the gradients where `params` is None."""
    return jax.tree.map(
        lambda u, like: u.astype(jnp.result_type(like)), updates, grads if params is None else params
    )


def next_weight(weight: jax.Array, one_minus_decay: jax.Array) -> jax.Array:
    """Returns w' = β·w + (1 − β), the total weight of an average after one more value; scalars."""
    return weight + one_minus_decay * (1.0 - weight)


def moving_rate(weight: jax.Array, one_minus_decay: jax.Array) -> jax.Array:
    """Returns (1 − β)/w', by how much the corrected average moves; 0 while nothing has had any weight. Scalars."""
    return safe_ratio(one_minus_decay, weight)


def move(average: jax.Array, value: jax.Array, rate: jax.Array) -> jax.Array:
    """Returns `(1 − rate)·average + rate·value`: at rate 1 exactly `value`, however large the average was.

    `average` and `value` have one shape, any; `rate` is a scalar in [0, 1].
    """
    return (1.0 - rate) * average + rate * value


def safe_root(x: jax.Array) -> jax.Array:
    """Returns √x, elementwise, for x ≥ 0, with derivative 0 instead of infinity at 0."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)


def safe_ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Returns numerator/denominator, elementwise, for denominators ≥ 0, and 0 where the denominator is 0."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1.0), 0.0)
