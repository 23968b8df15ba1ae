"""Shampoo's preconditioner: a tensor as blocks, one matrix per block and axis, and its inverse root.

    L_i ← β L_i + (1 − β) G_(i) G_(i)ᵀ,       direction = G ×₁ L₁^(−1/2r) ×₂ … ×ᵣ Lᵣ^(−1/2r)

G_(i) is the block unfolded along axis i, r the number of axes. Neighbouring small axes are merged first, so that a
bias or a small kernel becomes one vector with a full matrix. An axis that the block size does not divide is padded
with zeros: they stay in directions of their own, and change neither the other eigenvalues nor the result.

[1] Gupta et al. 2018, "Shampoo". [2] Anil et al. 2020, "Scalable second order optimization" (blocks, merged axes).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST


def merge_axes(shape: tuple[int, ...], *, max_size: int) -> tuple[int, ...]:
    """Returns `shape` with neighbours merged, from the left, while their product is at most `max_size`.

    Axes of length 1 vanish; a tensor of one element is (1,).
    """
    merged: list[int] = []
    product = 1
    for size in shape:
        if product * size <= max_size:
            product *= size
        else:
            merged += [product] if product > 1 else []
            product = size
    merged += [product] if product > 1 else []
    return tuple(merged) or (1,)


def block_shape(shape: tuple[int, ...], *, block_size: int) -> tuple[int, ...]:
    """Returns the shape of one block: no axis is longer than `block_size`."""
    return tuple(min(size, block_size) for size in shape)


def num_blocks(shape: tuple[int, ...], block: tuple[int, ...]) -> int:
    """Returns how many blocks cover a tensor."""
    return math.prod(-(-size // b) for size, b in zip(shape, block, strict=True))


def split_blocks(tensor: jax.Array, block: tuple[int, ...]) -> jax.Array:
    """Returns the blocks [num_blocks, *block] of a tensor, zeros where they reach beyond it."""
    counts = [-(-size // b) for size, b in zip(tensor.shape, block, strict=True)]
    padding = [(0, n * b - size) for size, n, b in zip(tensor.shape, counts, block, strict=True)]
    split = jnp.pad(tensor, padding).reshape([x for pair in zip(counts, block, strict=True) for x in pair])
    rank = tensor.ndim
    return split.transpose(*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)).reshape(-1, *block)


def join_blocks(blocks: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns the tensor of `shape` that `split_blocks` cut into `blocks`, [num_blocks, *block]."""
    block = blocks.shape[1:]
    rank = len(shape)
    counts = [-(-size // b) for size, b in zip(shape, block, strict=True)]
    order = [axis for pair in zip(range(rank), range(rank, 2 * rank), strict=True) for axis in pair]
    joined = blocks.reshape(*counts, *block).transpose(order)
    padded = joined.reshape([n * b for n, b in zip(counts, block, strict=True)])
    return padded[tuple(slice(size) for size in shape)]


def gram_matrices(blocks: jax.Array) -> tuple[jax.Array, ...]:
    """Returns G_(i) G_(i)ᵀ for every axis i of blocks [num_blocks, *block]: arrays [num_blocks, b_i, b_i]."""
    grams = []
    for axis in range(1, blocks.ndim):
        unfolded = jnp.moveaxis(blocks, axis, 1).reshape(blocks.shape[0], blocks.shape[axis], -1)
        grams.append(jnp.matmul(unfolded, unfolded.swapaxes(1, 2), precision=HIGHEST))
    return tuple(grams)


def multiply_axes(blocks: jax.Array, matrices: tuple[jax.Array, ...]) -> jax.Array:
    """Returns blocks [num_blocks, *block] with axis i multiplied by its symmetric matrix [num_blocks, b_i, b_i]."""
    for axis, matrix in enumerate(matrices, start=1):
        front = jnp.moveaxis(blocks, axis, 1)
        product = jnp.matmul(matrix, front.reshape(*front.shape[:2], -1), precision=HIGHEST)
        blocks = jnp.moveaxis(product.reshape(front.shape), 1, axis)
    return blocks


def inverse_root(matrices: jax.Array, *, power: int, epsilon: float) -> jax.Array:
    """Returns (A + ε·max(λ_max, 1e-6)·I)^(−1/power) of symmetric positive matrices [..., b, b]."""
    values, vectors = jnp.linalg.eigh(matrices)
    values = jnp.maximum(values, 0.0)  # rounding makes some of the smallest negative
    ridge = epsilon * jnp.maximum(values[..., -1:], 1e-6)
    scaled = vectors * jnp.power(values + ridge, -1.0 / power)[..., None, :]
    return jnp.matmul(scaled, vectors.swapaxes(-1, -2), precision=HIGHEST)
