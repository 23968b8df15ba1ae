"""Tensors of equal shape as one stacked array.

A network has many tensors and few shapes. Handled one by one, 75 tensors cost 75 copies of an optimizer's program
and a minute of compilation; stacked by shape, [k, *shape], each shape costs one copy, and every operation is long
enough to be worth starting. Accumulators are kept stacked, so only gradients, parameters and updates are copied.

Axes are counted from the end throughout (`factored_axes`), so that the leading axis k is nobody's concern. Small
matrices that end in a short axis may be kept with their last two axes swapped: averages over rows and columns, and
what is elementwise, do not notice.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lopt.features.grouping import SMALL_TENSOR
from lopt.types import PyTree

NARROW = 32
"""Elements below which a last axis is turned around: of 10 a loop is slow, of 32 it is not."""


class Stack(NamedTuple):
    """A static plan for the tensors of one shape. Hashable."""

    shape: tuple[int, ...]
    """Scalars count as vectors of one element."""
    members: tuple[int, ...]
    """Their positions among the leaves, in order."""
    rows: tuple[int, ...]
    """Their positions among the non-empty leaves: where per-tensor arrays [num_tensors, …] have them."""
    swapped: bool = False
    """Whether the last two axes of the leaves are the other way round."""

    @property
    def num_tensors(self) -> int:
        """k, the length of the leading axis."""
        return len(self.members)

    @property
    def is_factored(self) -> bool:
        """Whether second moments are kept as rows and columns: two dimensions or more."""
        return len(self.shape) >= 2

    @property
    def tensor_axes(self) -> tuple[int, ...]:
        """The axes of one tensor, counted from the end: what per-tensor reductions reduce over."""
        return tuple(range(-len(self.shape), 0))


def plan_stacks(leaves: list[jax.Array], *, swap_narrow: bool = False) -> tuple[Stack, ...]:
    """Returns one stack per shape, in order of first appearance; empty tensors are in none.

    Args:
      leaves: The tensors.
      swap_narrow: Swap the last two axes of small tensors that end in a short axis (`is_narrow`).
    """
    members: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    row = 0
    for i, leaf in enumerate(leaves):
        if math.prod(leaf.shape) > 0:
            members.setdefault(leaf.shape or (1,), []).append((i, row))
            row += 1
    return tuple(
        _stack(shape, pairs, swapped=swap_narrow and is_narrow(shape)) for shape, pairs in members.items()
    )


def _stack(shape: tuple[int, ...], pairs: list[tuple[int, int]], *, swapped: bool) -> Stack:
    stacked = (*shape[:-2], shape[-1], shape[-2]) if swapped else shape
    return Stack(stacked, tuple(i for i, _ in pairs), tuple(row for _, row in pairs), swapped)


def is_narrow(shape: tuple[int, ...]) -> bool:
    """Returns whether a tensor's last axis is too short to fill vector registers, and the one before is longer.

    Row and column factors make the last axis a loop of its own: over 10 numbers, a compiler does it one by one.
    Large tensors stay as they are, because turning one around is a pass over memory.
    """
    return len(shape) >= 2 and shape[-1] < min(NARROW, shape[-2]) and math.prod(shape) <= SMALL_TENSOR


def stack_leaves(stacks: tuple[Stack, ...], leaves: list[jax.Array]) -> list[jax.Array]:
    """Returns one float32 array [k, *shape] per stack."""
    return [jnp.stack([_oriented(stack, leaves[i]) for i in stack.members]) for stack in stacks]


def _oriented(stack: Stack, leaf: jax.Array) -> jax.Array:
    """Returns a leaf in float32 and in the shape that the stack has for it."""
    array = jnp.asarray(leaf).astype(jnp.float32)
    return jnp.swapaxes(array, -1, -2) if stack.swapped else array.reshape(stack.shape)


def unstack_leaves(
    stacks: tuple[Stack, ...], arrays: list[jax.Array], like: list[jax.Array]
) -> list[jax.Array]:
    """Returns the stacked tensors in the order, shapes and dtypes of `like`; empty ones as they are there."""
    out = list(like)
    for stack, array in zip(stacks, arrays, strict=True):
        array = jnp.swapaxes(array, -1, -2) if stack.swapped else array
        for position, i in enumerate(stack.members):
            out[i] = array[position].reshape(like[i].shape).astype(like[i].dtype)
    return out


def in_leaf_order(stacks: tuple[Stack, ...], per_stack: list[jax.Array]) -> jax.Array:
    """Returns per-tensor values, one [k, …] per stack, as [num_tensors, …] in the order of the non-empty leaves."""
    order = np.argsort([row for stack in stacks for row in stack.rows])
    return _take(jnp.concatenate(per_stack), order)


def rows_of(stack: Stack, values: PyTree) -> PyTree:
    """Returns the stack's rows, [k, …], of every leaf [num_tensors, …] of `values`."""
    return jax.tree.map(lambda x: _take(x, np.asarray(stack.rows)), values)


def _take(array: jax.Array, order: np.ndarray) -> jax.Array:
    """Gathers rows; the identity costs nothing."""
    return array if np.array_equal(order, np.arange(array.shape[0])) else array[order]


def tensor_mean(stack: Stack, array: jax.Array) -> jax.Array:
    """Returns the mean over each tensor, its axes kept at length 1: [k, *shape] → [k, 1, …]."""
    return jnp.mean(array, axis=stack.tensor_axes, keepdims=True)


def per_tensor(stack: Stack, values: jax.Array) -> jax.Array:
    """Reshapes one value per tensor, [k], so that it broadcasts over the stack: [k, 1, …]."""
    return values.reshape((stack.num_tensors,) + (1,) * len(stack.shape))
