"""Treating many small tensors as one vector.

A network has a few large tensors and many small ones. Handled one by one, the small ones cost an operation each
and most of the compilation time; concatenated, they cost one operation together. Large tensors stay alone, so
that nothing of their size is copied.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SMALL_TENSOR = 65_536
"""Elements up to which a tensor joins the common vector."""


class Grouping(NamedTuple):
    """A static plan: which tensors form which vector. Hashable."""

    shapes: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]
    """Indices of the tensors in each group, in order; empty tensors are in none."""

    def segment_ids(self, group: int) -> np.ndarray:
        """Returns, per element of the group's vector, [n], the position of its tensor within the group."""
        sizes = [math.prod(self.shapes[i]) for i in self.groups[group]]
        return np.repeat(np.arange(len(sizes)), sizes)


def plan(tensors: list[jax.Array], *, small: int = SMALL_TENSOR) -> Grouping:
    """Returns the grouping of `tensors` by their shapes."""
    shapes = tuple(t.shape for t in tensors)
    sizes = [math.prod(shape) for shape in shapes]
    little = tuple(i for i, size in enumerate(sizes) if 0 < size <= small)
    large = tuple((i,) for i, size in enumerate(sizes) if size > small)
    return Grouping(shapes, ((little,) if little else ()) + large)


def gather(grouping: Grouping, tensors: list[jax.Array]) -> list[jax.Array]:
    """Returns one float32 vector per group, [n] for the n elements of its tensors."""
    flat = [t.reshape(-1).astype(jnp.float32) for t in tensors]
    return [
        jnp.concatenate([flat[i] for i in group]) if len(group) > 1 else flat[group[0]]
        for group in grouping.groups
    ]


def pieces(grouping: Grouping, group: int, vector: jax.Array) -> list[jax.Array]:
    """Returns the group's vector, [n], cut into its tensors, in their shapes."""
    out, offset = [], 0
    for i in grouping.groups[group]:
        size = math.prod(grouping.shapes[i])
        out.append(vector[offset : offset + size].reshape(grouping.shapes[i]))
        offset += size
    return out


def scatter(grouping: Grouping, vectors: list[jax.Array]) -> list[jax.Array]:
    """Returns the tensors that the groups' vectors hold, in the original order and shapes, float32."""
    out = [jnp.zeros(shape, jnp.float32) for shape in grouping.shapes]
    for g, vector in enumerate(vectors):
        for i, piece in zip(grouping.groups[g], pieces(grouping, g, vector), strict=True):
            out[i] = piece
    return out


def tensor_mean(grouping: Grouping, group: int, vector: jax.Array) -> jax.Array:
    """Returns the mean over each tensor of the group: the group's vector, [n] → [tensors in group]."""
    return jnp.stack([jnp.mean(piece) for piece in pieces(grouping, group, vector)])


def spread(grouping: Grouping, group: int, values: jax.Array) -> jax.Array:
    """Returns one value per tensor repeated over its elements: [tensors in group] → [n]."""
    if len(grouping.groups[group]) == 1:
        return jnp.broadcast_to(values[0], (math.prod(grouping.shapes[grouping.groups[group][0]]),))
    return values[grouping.segment_ids(group)]


def scaled(grouping: Grouping, group: int, vector: jax.Array, factors: jax.Array) -> jax.Array:
    """Returns the group's vector, [n], with each tensor times its own factor: factors [tensors in group]."""
    cut = pieces(grouping, group, vector)
    return jnp.concatenate([(piece * factors[i]).reshape(-1) for i, piece in enumerate(cut)])
