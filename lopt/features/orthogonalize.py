"""The nearest orthogonal matrix, approximately, by Newton–Schulz iterations: all singular values go towards 1.

Each iteration applies an odd polynomial to the singular values by matrix products alone. The coefficients are
chosen so that even small ones rise quickly; the price is that five iterations end between 0.7 and 1.2, not at 1.

    X ← (a·I + b·A + c·A²)·X,     A = X·Xᵀ,     X₀ = G / (‖G‖ + ε)

[1] Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". optax has the iteration inside
    `optax.contrib.scale_by_muon`, under no public name of its own; the tests hold this one against it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b and c of [1]."""
SMALLEST_SPLIT = 512
"""Rows from which on a matrix's product with its own transpose is split; smaller ones gain nothing (measured)."""


def orthogonalize(
    matrices: jax.Array,
    *,
    num_iterations: int = 5,
    epsilon: float = 1e-8,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
) -> jax.Array:
    """Returns matrices [..., n, m] with the singular vectors of `matrices` and singular values near 1.

    A zero row or column stays zero, and a zero matrix stays zero.

    Args:
      matrices: [..., n, m], every matrix on its own. The products are of the smaller side: A is [..., s, s] with
        s = min(n, m), and an iteration costs 4·s²·max(n, m) + 2·s³ operations per matrix, for large ones a fifth
        to a quarter less.
      num_iterations: Iterations.
      epsilon: Added to the Frobenius norm that a matrix is divided by.
      coefficients: a, b and c.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = jnp.swapaxes(matrices, -2, -1) if is_tall else matrices
    x = x / (jnp.sqrt(jnp.sum(jnp.square(x), axis=(-2, -1), keepdims=True)) + epsilon)
    a, b, c = coefficients
    identity = a * jnp.eye(x.shape[-2], dtype=x.dtype).reshape((1,) * (x.ndim - 2) + (x.shape[-2],) * 2)

    def iterate(_: int, x: jax.Array) -> jax.Array:
        gram = _gram(x)
        # a·X as a·I inside the polynomial: one pass over X less. A is symmetric, so A·A is a Gram matrix, too.
        return (identity + b * gram + c * _gram(gram)) @ x

    x = jax.lax.fori_loop(0, num_iterations, iterate, x)
    return jnp.swapaxes(x, -2, -1) if is_tall else x


def _gram(x: jax.Array) -> jax.Array:
    """Returns X·Xᵀ, [..., n, n]. Of large ones, blocks below the diagonal are copied from above it."""
    n = x.shape[-2]
    if n < SMALLEST_SPLIT:
        return jnp.einsum("...ij,...kj->...ik", x, x)
    top, bottom = x[..., : n // 2, :], x[..., n // 2 :, :]
    corner = jnp.einsum("...ij,...kj->...ik", top, bottom)
    upper = jnp.concatenate([_gram(top), corner], axis=-1)
    lower = jnp.concatenate([jnp.swapaxes(corner, -2, -1), _gram(bottom)], axis=-1)
    return jnp.concatenate([upper, lower], axis=-2)
