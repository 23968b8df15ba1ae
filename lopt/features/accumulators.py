"""Running averages of gradients: momentum, second moment, factored second moment.

All are exponential moving averages that start at zero. `debias` corrects for that where an optimizer wants a
feature to have the same meaning at the first step as at the thousandth; the published networks do not correct.

A tensor's axes are counted from the end, so every function also takes stacks of tensors ([k, *shape], see
`lopt.features.stacks`); `shape` is always that of one tensor.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Decay = float | np.floating | jax.Array
"""β in (0, 1); an array where it is meta-learned."""


def update_ema(ema: jax.Array, value: jax.Array, decay: Decay) -> jax.Array:
    """Returns `decay·ema + (1 − decay)·value`, elementwise: arrays of one shape, to which `decay` broadcasts."""
    return decay * ema + (1.0 - decay) * value


def debias(ema: jax.Array, decay: Decay, count: jax.Array) -> jax.Array:
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
    """Row and column averages of g² (Shazeer & Stern 2018); a vector's or scalar's g² itself.

    Averaged axes are kept at length 1, so both broadcast against the tensor: float32, [*leading, *shape] but for
    that axis; `col` of vectors and scalars is [*leading, 0].
    """

    row: jax.Array
    """The average over the largest axis. For a tensor of fewer than two dimensions: g², not averaged."""
    col: jax.Array
    """The average over the second largest axis. For a tensor of fewer than two dimensions: empty."""


def factored_axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Returns the two largest axes (row axis, column axis) of a tensor, or None for vectors and scalars.

    The column axis is the largest. Ties go to the later axis, as in Adafactor.
    """
    if len(shape) < 2:
        return None
    by_size = sorted(range(len(shape)), key=lambda axis: (shape[axis], axis))
    return by_size[-2], by_size[-1]


def _axes_from_end(shape: tuple[int, ...]) -> tuple[int, int] | None:
    axes = factored_axes(shape)
    return None if axes is None else (axes[0] - len(shape), axes[1] - len(shape))


def init_factored(shape: tuple[int, ...], *, leading: tuple[int, ...] = ()) -> FactoredMoment:
    """Returns zeros for tensors of `shape`, stacked over the axes `leading`; the arrays are `FactoredMoment`'s."""
    axes = factored_axes(shape)
    if axes is None:
        return FactoredMoment(jnp.zeros(leading + shape, jnp.float32), jnp.zeros((*leading, 0), jnp.float32))
    row_axis, col_axis = axes
    averaged = lambda axis: tuple(1 if i == axis else n for i, n in enumerate(shape))
    return FactoredMoment(
        jnp.zeros(leading + averaged(col_axis), jnp.float32),
        jnp.zeros(leading + averaged(row_axis), jnp.float32),
    )


def update_factored(
    moment: FactoredMoment, squared: jax.Array, decay: Decay, *, shape: tuple[int, ...]
) -> FactoredMoment:
    """Returns the averages brought forward by g² (`squared`, [*leading, *shape])."""
    axes = _axes_from_end(shape)
    if axes is None:
        return FactoredMoment(update_ema(moment.row, squared, decay), moment.col)
    row_axis, col_axis = axes
    return FactoredMoment(
        update_ema(moment.row, jnp.mean(squared, axis=col_axis, keepdims=True), decay),
        update_ema(moment.col, jnp.mean(squared, axis=row_axis, keepdims=True), decay),
    )


def inverse_root_factors(
    row: jax.Array, col: jax.Array, shape: tuple[int, ...], *, floor: float, epsilon: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Returns the two factors of the inverse root of the rank-one estimate of g², shaped like `row` and `col`.

        v_ij = row_i · col_j / (mean(row) + ε),      row_factor · col_factor ≈ v_ij^(−1/2)

    Each factor is clamped on its own, so that an exactly zero row does not overflow the product.

    Args:
      row: Row averages as `FactoredMoment` keeps them, debiased or not.
      col: Column averages.
      shape: One tensor's shape.
      floor: Smallest value under either root. Positive.
      epsilon: Added to the mean of the rows; where 0, the mean is floored instead.

    Raises:
      ValueError: If `shape` has fewer than two dimensions.
    """
    axes = _axes_from_end(shape)
    if axes is None:
        raise ValueError(f"a factored moment needs two dimensions, got {shape=}; use the diagonal one")
    mean_row = jnp.mean(row, axis=axes[0], keepdims=True)
    denominator = mean_row + epsilon if epsilon > 0 else jnp.maximum(mean_row, floor)
    row_factor = jax.lax.rsqrt(jnp.maximum(row / denominator, floor))
    return row_factor, jax.lax.rsqrt(jnp.maximum(col, floor))


def factored_rsqrt(
    moment: FactoredMoment, shape: tuple[int, ...], decay: Decay, count: jax.Array, *, floor: float
) -> jax.Array:
    """Returns the debiased inverse root of the rank-one estimate of g², with the full shape [*leading, *shape].

    Args:
      moment: Row and column averages of tensors of `shape`, which has two or more dimensions.
      shape: One tensor's shape.
      decay: The decay that `moment` was averaged with.
      count: Number of updates so far, scalar float32.
      floor: Smallest value under either root. Positive.
    """
    row_factor, col_factor = inverse_root_factors(
        debias(moment.row, decay, count), debias(moment.col, decay, count), shape, floor=floor
    )
    return row_factor * col_factor
