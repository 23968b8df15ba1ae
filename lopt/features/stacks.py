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


class Stack(NamedTuple):
    """A static plan for the tensors of one shape. Hashable."""

    shape: tuple[int, ...]
    """Scalars count as vectors of one element."""
    members: tuple[int, ...]
    """Their positions among the leaves, in order."""

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
    members: dict[tuple[int, ...], list[int]] = {}
    for i, leaf in enumerate(leaves):
        if math.prod(leaf.shape) > 0:
            members.setdefault(leaf.shape or (1,), []).append(i)
    return tuple(Stack(shape, tuple(indices)) for shape, indices in members.items())


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


def tensor_order(stacks: tuple[Stack, ...]) -> np.ndarray:
    """Returns, per non-empty leaf in leaf order, its row when per-tensor values are concatenated stack by stack."""
    concatenated = [i for stack in stacks for i in stack.members]
    return np.argsort(np.asarray(concatenated, dtype=np.int64))


def split_tensors(stacks: tuple[Stack, ...], values: jax.Array) -> list[jax.Array]:
    """Cuts per-tensor values [num_tensors, …], concatenated stack by stack, into one [k, …] per stack."""
    bounds = np.cumsum([0, *(stack.num_tensors for stack in stacks)])
    return [values[bounds[s] : bounds[s + 1]] for s in range(len(stacks))]


def tensor_mean(stack: Stack, array: jax.Array) -> jax.Array:
    """Returns the mean over each tensor, its axes kept at length 1: [k, *shape] → [k, 1, …]."""
    return jnp.mean(array, axis=stack.tensor_axes, keepdims=True)


def per_tensor(stack: Stack, values: jax.Array) -> jax.Array:
    """Reshapes one value per tensor, [k], so that it broadcasts over the stack: [k, 1, …]."""
    return values.reshape((stack.num_tensors,) + (1,) * len(stack.shape))
