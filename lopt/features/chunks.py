"""Running a wide per-parameter function over a stack of tensors, a cacheful at a time where that is faster.

A recurrent per-parameter network has dozens of intermediate values per parameter. Over whole tensors each of them
is a trip to memory: on a CPU that costs four times the arithmetic. Here the parameters of a stack are cut into
pieces whose intermediates stay in cache, and only inputs and outputs travel. An accelerator gets the whole stack at
once, which is what fuses there and keeps sharded tensors in their shards. (On a mesh of CPU devices, a rehearsal of
the real thing, the loop over pieces gathers what is sharded: same numbers, more traffic.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt.features.stacks import Stack
from lopt.types import PyTree

PerParameter = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
"""(per-tensor values [b, …], arrays [b, *dims]) → (arrays [b, *dims], sums over each tensor's parameters [b, …]).

It must treat every parameter alike: b and dims are those of a piece."""

MIN_CHUNK = 2048
"""Below this a piece costs more to start than to compute."""


class Chunks(NamedTuple):
    """How a stack of k tensors of P parameters is cut: static."""

    tensors: int
    """Tensors per piece; 1 where a tensor is more than one piece."""
    pieces_per_tensor: int


def plan_chunks(stack: Stack, chunk_size: int) -> Chunks | None:
    """Returns the cut into equal pieces of at most `chunk_size` parameters, or None where there is no good one.

    Pieces are equal because a remainder would be a second program. Lengths with no divisor between `MIN_CHUNK` and
    `chunk_size` are rare (a vector of prime length) and stay whole.
    """
    size = math.prod(stack.shape)
    if size * stack.num_tensors <= chunk_size:
        return None
    if size > chunk_size:
        piece = _largest_divisor(size, chunk_size)
        return Chunks(1, size // piece) if piece >= MIN_CHUNK else None
    tensors = _largest_divisor(stack.num_tensors, chunk_size // size)
    return Chunks(tensors, 1) if tensors * size >= MIN_CHUNK else None


def over_parameters(
    stack: Stack, function: PerParameter, tensor_values: PyTree, arrays: PyTree, *, chunk_size: int
) -> tuple[PyTree, PyTree]:
    """Returns `function(tensor_values, arrays)`, in pieces of at most `chunk_size` parameters on a CPU.

    Args:
      stack: The tensors.
      function: What to compute; may close over theta.
      tensor_values: Leaves [k, …].
      arrays: Leaves [k, *shape].
      chunk_size: Largest number of parameters per piece.

    Returns:
      Arrays [k, *shape], and sums [k, …] over the parameters of each tensor.
    """
    chunks = plan_chunks(stack, chunk_size)
    if chunks is None:
        return function(tensor_values, arrays)
    return jax.lax.platform_dependent(
        tensor_values, arrays, cpu=lambda t, a: _in_pieces(stack, chunks, function, t, a), default=function
    )


def _in_pieces(
    stack: Stack, chunks: Chunks, function: PerParameter, tensor_values: PyTree, arrays: PyTree
) -> tuple[PyTree, PyTree]:
    repeats, tensors = chunks.pieces_per_tensor, chunks.tensors
    num_pieces = stack.num_tensors * repeats // tensors
    per_piece = lambda x: jnp.repeat(x, repeats, axis=0).reshape(num_pieces, tensors, *x.shape[1:])
    # Outside the loop a piece is one axis: with a second one of length 1 the compiler sees two memory layouts that
    # are the same, picks different ones inside and outside, and copies every array.
    flat = lambda x: x.reshape(num_pieces, -1)

    def step(carry: None, piece: tuple[PyTree, PyTree]) -> tuple[None, tuple[PyTree, PyTree]]:
        values, rows = piece
        outputs, sums = function(values, jax.tree.map(lambda x: x.reshape(tensors, -1), rows))
        return carry, (jax.tree.map(lambda x: x.reshape(-1), outputs), sums)

    _, (outputs, sums) = jax.lax.scan(
        step, None, (jax.tree.map(per_piece, tensor_values), jax.tree.map(flat, arrays))
    )
    whole = lambda x: x.reshape(stack.num_tensors, *stack.shape)
    total = lambda x: x.reshape(stack.num_tensors, repeats, *x.shape[2:]).sum(axis=1)
    return jax.tree.map(whole, outputs), jax.tree.map(total, sums)


def _largest_divisor(number: int, limit: int) -> int:
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)
