"""Hand-designed optimizers to compare with, as data: a name, a factory, a grid.

[1] Metz et al. 2022, "VeLO", App. F.1 (Adam at every half power of ten).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import optax

from lopt.features.progress import cosine_decay
from lopt.types import Scalar

LEARNING_RATE_GRID: tuple[float, ...] = (
    *(round(mantissa * 10.0**exponent, 8) for exponent in range(-7, 0) for mantissa in (1.0, 3.0)),
    1.0,
)
"""Fifteen rates from 1e-7 to 1: every half power of ten, rounded as the field does (1, 3, 10, …)."""


class Baseline(NamedTuple):
    """A hand-designed optimizer with one number to tune."""

    name: str
    label: str
    factory: Callable[[Scalar, Scalar], optax.GradientTransformationExtraArgs]
    """(learning rate, number of steps) → transformation; both may be traced."""


def _adam(learning_rate: Scalar, num_steps: Scalar) -> optax.GradientTransformationExtraArgs:
    del num_steps  # a constant rate has no horizon
    return optax.with_extra_args_support(
        optax.chain(optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8), _scale(lambda count: learning_rate))
    )


def _adamw_cosine(learning_rate: Scalar, num_steps: Scalar) -> optax.GradientTransformationExtraArgs:
    total = jnp.asarray(num_steps, jnp.float32)
    return optax.with_extra_args_support(
        optax.chain(
            optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
            optax.add_decayed_weights(1e-4),
            _scale(lambda count: learning_rate * cosine_decay(count.astype(jnp.float32), total)),
        )
    )


def _scale(schedule: Callable[[Scalar], Scalar]) -> optax.GradientTransformation:
    return optax.scale_by_schedule(lambda count: -schedule(count))


BASELINES: dict[str, Baseline] = {
    "adam": Baseline("adam", "tuned Adam", _adam),
    "adamw_cosine": Baseline("adamw_cosine", "tuned cosine AdamW", _adamw_cosine),
}
