"""Momenta and second moments on several time-scales, and what a per-parameter network is shown of them.

The time-scales are the leading axis, [d, k, *shape] for a stack of k tensors: ten moments are two arrays, and a
compiler gets one loop where separate ones would be five. None is corrected for its zero start. Features are named
groups in the order in which the published RNN-MLP's weights expect them.

[1] Metz et al. 2020, "Tasks, stability, architecture, and compute", App. C.2.1 and `compute_per_param_features`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lopt.features.rounding import store
from lopt.features.stacks import Stack

ROLLING_DECAYS = (0.5, 0.9, 0.99, 0.999, 0.9999)


class RollingMoments(NamedTuple):
    """Moving averages of g and g² of one stack, [d, k, *shape] each."""

    momenta: jax.Array
    second_moments: jax.Array


def init_rolling(stack: Stack, num_decays: int, dtype: jnp.dtype) -> RollingMoments:
    """Returns zeros."""
    zeros = jnp.zeros((num_decays, stack.num_tensors, *stack.shape), dtype)
    return RollingMoments(zeros, zeros)


def update_rolling(moments: RollingMoments, grad: jax.Array, decays: Sequence[float]) -> RollingMoments:
    """Returns float32 averages brought forward by the gradient, [k, *shape].

    Decays are rounded to float32 *before* 1 − β is taken, as in the published network: for 0.9999 that is 1.7e-4
    more.
    """
    rounded = np.asarray(decays, np.float32).reshape((-1,) + (1,) * grad.ndim)
    ema = lambda old, new: rounded * old.astype(jnp.float32) + (np.float32(1.0) - rounded) * new[None]  # noqa: E731
    return RollingMoments(ema(moments.momenta, grad), ema(moments.second_moments, jnp.square(grad)))


def store_rolling(moments: RollingMoments, dtype: jnp.dtype, salt: jax.Array) -> RollingMoments:
    """Returns the moments as they are kept between steps; `salt` varies the rounding from step to step."""
    return RollingMoments(*(store(x, dtype, salt) for x in moments))


class RollingInputs(NamedTuple):
    """What the features are computed from; after this step, `inverse_roots` is (second moment + 1e-6)^(−1/2)."""

    param: jax.Array  # [b, *dims]
    grad: jax.Array
    momenta: jax.Array  # [d, b, *dims]
    second_moments: jax.Array
    inverse_roots: jax.Array


ROLLING_FEATURES: dict[str, Callable[[RollingInputs], jax.Array]] = {
    "gradient": lambda x: x.grad[None],
    "param": lambda x: x.param[None],
    "log_param": lambda x: jnp.log(jnp.abs(x.param) + 1e-8)[None],
    "momentum": lambda x: x.momenta,
    "second_moment": lambda x: x.second_moments,
    "scaled_momentum": lambda x: x.momenta * x.inverse_roots,
    "inverse_root": lambda x: x.inverse_roots,
}
"""Name → feature group, [n, b, *dims]; elementwise, so that it may be given any part of a stack.

`scaled_momentum` is each momentum over the root of the second moment of its own decay."""


def rolling_features(
    names: Sequence[str], param: jax.Array, grad: jax.Array, moments: RollingMoments
) -> list[jax.Array]:
    """Returns the named groups."""
    roots = jax.lax.rsqrt(moments.second_moments + 1e-6)
    inputs = RollingInputs(param, grad, moments.momenta, moments.second_moments, roots)
    return [ROLLING_FEATURES[name](inputs) for name in names]


def rolling_feature_sizes(num_decays: int) -> dict[str, int]:
    """Returns how many features each group has."""
    single = ("gradient", "param", "log_param")
    return {name: 1 if name in single else num_decays for name in ROLLING_FEATURES}
