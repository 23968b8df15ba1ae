"""Running averages of gradients: momentum, second moment, factored second moment.

All are exponential moving averages that start at zero and are corrected for it on reading (`debias`), so that a
feature has the same meaning at the first step as at the thousandth.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


def update_ema(ema: jax.Array, value: jax.Array, decay: float) -> jax.Array:
    """Returns `decay·ema + (1 − decay)·value`, elementwise."""
    return decay * ema + (1.0 - decay) * value


def debias(ema: jax.Array, decay: float, count: jax.Array) -> jax.Array:
    """Returns the moving average corrected for its zero start after `count` updates.

    The correction is floored: compiled code may evaluate it for `count` 0, where 1 − βⁿ is exactly zero and the
    quotient 0/0 would be NaN.

    Args:
      ema: The running average, any shape.
      decay: β in (0, 1).
      count: Number of updates so far, scalar float32.
    """
    return ema / jnp.maximum(1.0 - jnp.power(jnp.float32(decay), count), jnp.float32(1e-6))


class FactoredMoment(NamedTuple):
    """Row and column averages of g², for a tensor of two or more dimensions (Shazeer & Stern 2018)."""

    row: jax.Array
    """The average over the largest axis but one removed; shape: the tensor's, without its column axis."""
    col: jax.Array


def factored_axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Returns the two largest axes (row axis, column axis) of a tensor, or None for vectors and scalars.

    The column axis is the largest. Ties go to the later axis, as in Adafactor.
    """
    if len(shape) < 2:
        return None
    by_size = sorted(range(len(shape)), key=lambda axis: (shape[axis], axis))
    return by_size[-2], by_size[-1]


def init_factored(param: jax.Array) -> FactoredMoment:
    """Returns zeros for `param`; empty arrays where it has fewer than two dimensions."""
    axes = factored_axes(param.shape)
    if axes is None:
        return FactoredMoment(jnp.zeros((0,), jnp.float32), jnp.zeros((0,), jnp.float32))
    row_axis, col_axis = axes
    without = lambda axis: tuple(size for i, size in enumerate(param.shape) if i != axis)  # noqa: E731
    return FactoredMoment(
        jnp.zeros(without(col_axis), jnp.float32), jnp.zeros(without(row_axis), jnp.float32)
    )


def update_factored(moment: FactoredMoment, squared: jax.Array, decay: float) -> FactoredMoment:
    """Returns the row and column averages brought forward by g² (`squared`, the tensor's shape)."""
    axes = factored_axes(squared.shape)
    if axes is None:
        return moment
    row_axis, col_axis = axes
    return FactoredMoment(
        update_ema(moment.row, jnp.mean(squared, axis=col_axis), decay),
        update_ema(moment.col, jnp.mean(squared, axis=row_axis), decay),
    )


def factored_rsqrt(
    moment: FactoredMoment, shape: tuple[int, ...], decay: float, count: jax.Array, *, floor: float
) -> jax.Array:
    """Returns the inverse root of the rank-one estimate of g², broadcastable to `shape`.

        v̂_ij = row_i · col_j / mean(row),      result = row_factor · col_factor ≈ v̂_ij^(−1/2)

    Each factor is clamped on its own, so that an exactly zero row does not overflow the product.

    Args:
      moment: Row and column averages of a tensor of `shape`, which has two or more dimensions.
      shape: The tensor's shape.
      decay: The decay that `moment` was averaged with.
      count: Number of updates so far.
      floor: Smallest value under either root. Positive.

    Raises:
      ValueError: If `shape` has fewer than two dimensions.
    """
    axes = factored_axes(shape)
    if axes is None:
        raise ValueError(f"a factored moment needs two dimensions, got {shape=}; use the diagonal one")
    row_axis, col_axis = axes
    row, col = debias(moment.row, decay, count), debias(moment.col, decay, count)
    # After the column axis is gone, the row axis may have moved one place to the left.
    reduced_axis = row_axis - 1 if row_axis > col_axis else row_axis
    mean_row = jnp.mean(row, axis=reduced_axis, keepdims=True)
    row_factor = jax.lax.rsqrt(jnp.maximum(row / jnp.maximum(mean_row, floor), floor))
    col_factor = jax.lax.rsqrt(jnp.maximum(col, floor))
    return jnp.expand_dims(row_factor, col_axis) * jnp.expand_dims(col_factor, row_axis)
