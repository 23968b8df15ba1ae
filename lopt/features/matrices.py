"""Tensors of more than two dimensions as stacks of matrices: what is defined per matrix then needs no other case.

A tensor [..., n, m] counts as one [n, m] matrix for every index in front; vectors and matrices stay as they are.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from lopt.features.stacks import Stack


def matrix_stack(stack: Stack) -> Stack:
    """Returns the plan of the same tensors' matrices: k·(product of the leading axes) of them, [n, m] each."""
    if len(stack.shape) <= 2:
        return stack
    count = stack.num_tensors * math.prod(stack.shape[:-2])
    return Stack(stack.shape[-2:], tuple(range(count)), tuple(range(count)))


def as_matrices(stack: Stack, array: jax.Array) -> jax.Array:
    """Returns [k, *shape] as [k·leading, n, m]. Length 1 is kept along the last two axes only."""
    if len(stack.shape) <= 2:
        return array
    full = (stack.num_tensors, *stack.shape[:-2], *array.shape[-2:])
    return jnp.broadcast_to(array, full).reshape((-1, *array.shape[-2:]))
