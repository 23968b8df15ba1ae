"""Tensors of equal shape as one stacked array.

A network has many tensors and few shapes. Handled one by one, 75 tensors cost 75 copies of an optimizer's program
and a minute of compilation; stacked by shape, [k, *shape], each shape costs one copy, and every operation is long
enough to be worth starting. Accumulators are kept stacked, so only gradients, parameters and updates are copied.

Axes are counted from the end throughout (`factored_axes`), so that the leading axis k is nobody's concern.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lopt.types import PyTree


class Stack(NamedTuple):
    """A static plan for the tensors of one shape. Hashable."""

    shape: tuple[int, ...]
    """Scalars count as vectors of one element."""
    members: tuple[int, ...]
    """Their positions among the leaves, in order."""
    rows: tuple[int, ...]
    """Their positions among the non-empty leaves: where per-tensor arrays [num_tensors, …] have them."""

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


def plan_stacks(leaves: list[jax.Array]) -> tuple[Stack, ...]:
    """Returns one stack per shape, in order of first appearance; empty tensors are in none."""
    members: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    row = 0
    for i, leaf in enumerate(leaves):
        if math.prod(leaf.shape) > 0:
            members.setdefault(leaf.shape or (1,), []).append((i, row))
            row += 1
    return tuple(
        Stack(shape, tuple(i for i, _ in pairs), tuple(row for _, row in pairs))
        for shape, pairs in members.items()
    )


def stack_leaves(stacks: tuple[Stack, ...], leaves: list[jax.Array]) -> list[jax.Array]:
    """Returns one float32 array [k, *shape] per stack."""
    return [
        jnp.stack([jnp.asarray(leaves[i]).astype(jnp.float32).reshape(stack.shape) for i in stack.members])
        for stack in stacks
    ]


def unstack_leaves(
    stacks: tuple[Stack, ...], arrays: list[jax.Array], like: list[jax.Array]
) -> list[jax.Array]:
    """Returns the stacked tensors in the order, shapes and dtypes of `like`; empty ones as they are there."""
    out = list(like)
    for stack, array in zip(stacks, arrays, strict=True):
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
