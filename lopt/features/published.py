"""Accumulators and per-parameter features of the networks published from 2022 on: AdafactorMLP, VeLO, Celo2.

Three momenta, one second moment and three factored second moments, none corrected for its zero start; features
are named groups, each one array per decay, in the order in which the published weights expect them. Features that
are constant along an axis keep length 1 there (see `lopt.rules.per_parameter_network`).

[1] Metz et al. 2022, "Practical tradeoffs between memory, compute, and performance in learned optimizers".
[2] Metz et al. 2022, "VeLO", App. B.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lopt.features.accumulators import (
    Decay,
    FactoredMoment,
    init_factored,
    inverse_root_factors,
    update_ema,
    update_factored,
)
from lopt.features.rounding import store
from lopt.features.stacks import Stack

SQUARE_EPSILON = 1e-30
"""Added to g² before it is averaged into factored moments, as Adafactor does."""
FACTOR_FLOOR = 1e-9
"""Smallest value under the root of a row or column factor."""
CLIPPED_GRADIENT = 0.1
"""Bound of the feature `clipped_gradient`."""


def _float32(*decays: float) -> tuple[Decay, ...]:
    # The published networks take 1 − β in float32, which is 5e-5 off for β = 0.999: enough to see in their paths.
    return tuple(np.float32(decay) for decay in decays)


class Decays(NamedTuple):
    """Decay rates of each kind of accumulator; arrays where they are meta-learned."""

    momentum: tuple[Decay, ...] = _float32(0.9, 0.99, 0.999)
    second_moment: tuple[Decay, ...] = _float32(0.999)
    factored: tuple[Decay, ...] = _float32(0.9, 0.99, 0.999)


class Accumulators(NamedTuple):
    """The accumulators of one stack; one entry per decay."""

    momenta: tuple[jax.Array, ...]
    """[k, *shape] each, like the second moments."""
    second_moments: tuple[jax.Array, ...]
    factored: tuple[FactoredMoment, ...]
    """With leading axis k."""


def init_accumulators(stack: Stack, decays: Decays, dtype: jnp.dtype) -> Accumulators:
    """Returns zeros; momenta and second moments in `dtype`, the small factored moments in float32."""
    full = (stack.num_tensors, *stack.shape)
    return Accumulators(
        momenta=tuple(jnp.zeros(full, dtype) for _ in decays.momentum),
        second_moments=tuple(jnp.zeros(full, dtype) for _ in decays.second_moment),
        factored=tuple(init_factored(stack.shape, leading=(stack.num_tensors,)) for _ in decays.factored),
    )


def accumulate(acc: Accumulators, grad: jax.Array, decays: Decays, stack: Stack) -> Accumulators:
    """Returns float32 accumulators brought forward by the gradient, [k, *shape]."""
    squared = jnp.square(grad)
    acc = to_float32(acc)
    return Accumulators(
        momenta=tuple(update_ema(m, grad, d) for m, d in zip(acc.momenta, decays.momentum, strict=True)),
        second_moments=tuple(
            update_ema(v, squared, d) for v, d in zip(acc.second_moments, decays.second_moment, strict=True)
        ),
        factored=tuple(
            update_factored(v, squared + SQUARE_EPSILON, d, shape=stack.shape)
            for v, d in zip(acc.factored, decays.factored, strict=True)
        ),
    )


def to_float32(acc: Accumulators) -> Accumulators:
    """Returns the accumulators in float32, whatever they are kept in."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), acc)


def store_accumulators(acc: Accumulators, dtype: jnp.dtype, salt: jax.Array) -> Accumulators:
    """Returns the accumulators as they are kept between steps.

    Args:
      acc: Float32.
      dtype: Of momenta and second moments; the factored moments stay float32.
      salt: Scalar whole number, another one at every step, which varies the rounding (`lopt.features.rounding`).
    """
    return acc._replace(
        momenta=tuple(store(m, dtype, salt) for m in acc.momenta),
        second_moments=tuple(store(v, dtype, salt) for v in acc.second_moments),
    )


class FeatureInputs(NamedTuple):
    """What the features of one stack are computed from: arrays [k, *shape], factors of length 1 along one axis."""

    param: jax.Array
    grad: jax.Array
    acc: Accumulators
    """Brought forward by this step's gradient."""
    row_factors: tuple[jax.Array, ...]
    """Inverse root factors per decay; for vectors, [k, n]: of the gradient's own second moment."""
    col_factors: tuple[jax.Array, ...]
    """For vectors ones, [k, 1]."""
    momentum_factors: tuple[jax.Array, ...]
    """What momenta are multiplied by besides the column factor: the row factor, except for vectors."""
    inverse_roots: tuple[jax.Array, ...]
    """(second moment + 1e-6)^(−1/2) per decay."""


def feature_inputs(
    stack: Stack, param: jax.Array, grad: jax.Array, acc: Accumulators, *, vector_momentum_epsilon: float
) -> FeatureInputs:
    """Returns the inputs of every feature of one stack.

    Args:
      stack: The tensors.
      param: Parameters, [k, *shape].
      grad: Gradients as the accumulators saw them, [k, *shape].
      acc: Float32 accumulators after this step.
      vector_momentum_epsilon: Added under the root by which vectors' momenta are divided: AdafactorMLP has 1e-6,
        VeLO none.
    """
    inverse_roots = tuple(jax.lax.rsqrt(v + 1e-6) for v in acc.second_moments)
    if stack.is_factored:
        factors = [
            inverse_root_factors(v.row, v.col, stack.shape, floor=FACTOR_FLOOR, epsilon=1e-9)
            for v in acc.factored
        ]
        rows, cols = tuple(f[0] for f in factors), tuple(f[1] for f in factors)
        return FeatureInputs(param, grad, acc, rows, cols, rows, inverse_roots)
    diagonal = tuple(jax.lax.rsqrt(jnp.maximum(v.row + FACTOR_FLOOR, FACTOR_FLOOR)) for v in acc.factored)
    ones = tuple(jnp.ones((stack.num_tensors, 1), jnp.float32) for _ in acc.factored)
    for_momenta = tuple(jax.lax.rsqrt(v.row + vector_momentum_epsilon) for v in acc.factored)
    return FeatureInputs(param, grad, acc, diagonal, ones, for_momenta, inverse_roots)


Feature = Callable[[FeatureInputs], Sequence[jax.Array]]


def _column_moments(x: FeatureInputs) -> list[jax.Array]:
    """The column averages; vectors and scalars have their diagonal in both places."""
    return [v.col if v.col.size else v.row for v in x.acc.factored]


PUBLISHED_FEATURES: dict[str, Feature] = {
    "gradient": lambda x: [x.grad],
    "clipped_gradient": lambda x: [jnp.clip(x.grad, -CLIPPED_GRADIENT, CLIPPED_GRADIENT)],
    "param": lambda x: [x.param],
    "momentum": lambda x: x.acc.momenta,
    "second_moment": lambda x: x.acc.second_moments,
    "normalized_momentum": lambda x: [m * r for r in x.inverse_roots for m in x.acc.momenta],
    "inverse_root": lambda x: x.inverse_roots,
    "factored_gradient": lambda x: [
        x.grad * r * c for r, c in zip(x.row_factors, x.col_factors, strict=True)
    ],
    "normalized_gradient": lambda x: [x.grad * r for r in x.inverse_roots],
    "row": lambda x: [v.row for v in x.acc.factored],
    "column": _column_moments,
    "row_inverse_root": lambda x: [jax.lax.rsqrt(v.row + 1e-8) for v in x.acc.factored],
    "column_inverse_root": lambda x: [jax.lax.rsqrt(v + 1e-8) for v in _column_moments(x)],
    "factored_momentum": lambda x: [
        m * r * c for m, r, c in zip(x.acc.momenta, x.momentum_factors, x.col_factors, strict=True)
    ],
}
"""Name → feature group, in VeLO's order."""


def feature_sizes(decays: Decays) -> dict[str, int]:
    """Returns how many arrays each feature group has."""
    many = {
        "momentum": len(decays.momentum),
        "second_moment": len(decays.second_moment),
        "normalized_momentum": len(decays.momentum) * len(decays.second_moment),
        "inverse_root": len(decays.second_moment),
        "normalized_gradient": len(decays.second_moment),
        "factored_momentum": len(decays.factored),
        **dict.fromkeys(
            ("factored_gradient", "row", "column", "row_inverse_root", "column_inverse_root"),
            len(decays.factored),
        ),
    }
    return {name: many.get(name, 1) for name in PUBLISHED_FEATURES}


def require_paired_decays(features: Sequence[str], momentum_decays: int, factored_decays: int) -> None:
    """Raises a ValueError if the factored momentum, which pairs decays, is a feature and they are not as many."""
    if "factored_momentum" in features and momentum_decays != factored_decays:
        raise ValueError(
            "the feature 'factored_momentum' pairs `momentum_decays` with `factored_decays`, which must be "
            f"equally many, got {momentum_decays} and {factored_decays}; leave the feature out, or add decays"
        )


def compute_features(names: Sequence[str], inputs: FeatureInputs) -> list[jax.Array]:
    """Returns the named groups' arrays in the order of `names`, each broadcastable to [k, *shape]."""
    return [array for name in names for array in PUBLISHED_FEATURES[name](inputs)]
