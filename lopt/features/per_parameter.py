"""Per-parameter features: named functions of the accumulators, all unit-free.

Unit-free means that multiplying every gradient of a tensor by a constant changes nothing, so a network that was
trained on small tasks meets inputs of the same size on large ones. A feature set is a tuple of names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt.features.accumulators import debias

VARIANCE_FLOOR = 1e-30
"""Under every root of a second moment: gradients down to 1e-15 keep their relative size."""


class Accumulators(NamedTuple):
    """What the features of one vector of parameters are computed from; arrays [n] unless noted."""

    param: jax.Array
    inverse_param_rms: jax.Array
    """1/RMS of the tensor that each parameter belongs to; zero for an all-zero tensor."""
    grad: jax.Array
    momenta: jax.Array
    """[num_decays, n]"""
    second_moment: jax.Array
    inverse_factored_root: jax.Array
    """The rank-one estimate of v̂^(−1/2); for vectors and scalars, v̂^(−1/2) itself."""
    num_updates: jax.Array
    """Scalar float32: updates so far, this one included."""
    momentum_decays: tuple[float, ...]
    second_moment_decay: float


def inverse_root(second_moment: jax.Array, decay: float, count: jax.Array) -> jax.Array:
    """Returns v̂^(−1/2), v̂ being the second moment corrected for its zero start: of its shape, which may be any.

    `count` is the scalar number of updates that the moment has seen.
    """
    return jax.lax.rsqrt(debias(second_moment, decay, count) + VARIANCE_FLOOR)


def _inverse_root(acc: Accumulators) -> jax.Array:
    return inverse_root(acc.second_moment, acc.second_moment_decay, acc.num_updates)


def _debiased_momentum(acc: Accumulators, index: int) -> jax.Array:
    return debias(acc.momenta[index], acc.momentum_decays[index], acc.num_updates)


def _momentum(index: int) -> Callable[[Accumulators], jax.Array]:
    return lambda acc: _debiased_momentum(acc, index) * _inverse_root(acc)


def _factored_momentum(index: int) -> Callable[[Accumulators], jax.Array]:
    return lambda acc: _debiased_momentum(acc, index) * acc.inverse_factored_root


PER_PARAMETER_FEATURES: dict[str, Callable[[Accumulators], jax.Array]] = {
    "momentum_fast": _momentum(0),
    "momentum_medium": _momentum(1),
    "momentum_slow": _momentum(2),
    "gradient": lambda acc: acc.grad * _inverse_root(acc),
    "factored_momentum_fast": _factored_momentum(0),
    "factored_momentum_medium": _factored_momentum(1),
    "relative_param": lambda acc: acc.param * acc.inverse_param_rms,
}
"""Name → feature. Momenta are m̂/√v̂; factored ones divide by the rank-one estimate of √v̂ (vectors: by √v̂)."""


def compute(names: tuple[str, ...], acc: Accumulators, *, clip: float) -> list[jax.Array]:
    """Returns the named features of a vector of parameters, [n] each, within ±`clip`.

    Separate arrays, because stacked they would be written to memory before any network reads them.
    """
    return [jnp.clip(PER_PARAMETER_FEATURES[name](acc), -clip, clip) for name in names]
