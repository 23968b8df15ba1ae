"""Initialisers, for a whole network at once: one draw of normal numbers, one choice of what becomes of them.

Metz et al. 2022 (arXiv:2211.09760), App. C.2.1. Every kernel is [..., fan_out] and fan_in counts all leading
axes; biases start at zero. Drawing once and switching once, instead of per layer, compiles three to five
times as fast: a random generator is one of the larger things to compile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
from jax import lax

from lopt.registry import lookup
from lopt.types import Params

Initializer = Callable[[jax.Array], jax.Array]
"""Turns independent standard normal numbers [..., fan_out] into weights of that shape."""


def orthogonal(noise: jax.Array) -> jax.Array:
    """Returns a uniformly distributed semi-orthogonal [fan_in, fan_out] matrix in the noise's shape."""
    matrix = noise.reshape(-1, noise.shape[-1])
    is_tall = matrix.shape[0] >= matrix.shape[1]
    q, r = jnp.linalg.qr(matrix if is_tall else matrix.T)
    q = q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0).astype(q.dtype)[None, :]  # makes the draw uniform
    return (q if is_tall else q.T).reshape(noise.shape)


def fan_in_uniform(noise: jax.Array) -> jax.Array:
    """Returns weights uniform in ±sqrt(3 / fan_in): the noise through the normal distribution function."""
    return lax.erf(noise * jnp.float32(math.sqrt(0.5))) * jnp.float32(math.sqrt(3.0 / _fan_in(noise)))


def fan_in_normal(noise: jax.Array) -> jax.Array:
    """Returns normal weights with variance 1 / fan_in."""
    return noise * jnp.float32(_fan_in(noise) ** -0.5)


INITIALIZERS: dict[str, Initializer] = {
    "orthogonal": orthogonal,
    "uniform": fan_in_uniform,
    "normal": fan_in_normal,
}

if TYPE_CHECKING:
    InitializerName = str
else:  # the names are the registry's keys, so that a new entry is one line
    InitializerName = Literal[tuple(INITIALIZERS)]


def initialize(template: Params, key: jax.Array, kind: str | jax.Array, scale: float | jax.Array) -> Params:
    """Returns fresh parameters.

    Args:
      template: The parameters' shapes. Leaves of two or more axes are kernels, the others biases.
      key: What the parameters depend on.
      kind: Name of an initialiser, or an index into `INITIALIZERS` (int32 [], may be traced).
      scale: Multiplies every kernel.
    """
    leaves, structure = jax.tree.flatten(template)
    kernels = [leaf for leaf in leaves if leaf.ndim > 1]
    numbers = jax.random.normal(key, (sum(leaf.size for leaf in kernels),), jnp.float32)
    noise = split_vector(numbers, [leaf.shape for leaf in kernels])

    def all_kernels(initializer: Initializer) -> Callable[[list[jax.Array]], list[jax.Array]]:
        return lambda noise: [initializer(x) for x in noise]

    if isinstance(kind, str):
        weights = all_kernels(lookup(INITIALIZERS, kind, kind="initializer"))(noise)
    else:
        weights = lax.switch(kind, [all_kernels(fn) for fn in INITIALIZERS.values()], noise)
    factor = jnp.asarray(scale, jnp.float32)
    drawn = iter([kernel * factor for kernel in weights])
    filled = [next(drawn) if leaf.ndim > 1 else jnp.zeros(leaf.shape, jnp.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, filled)


def split_vector(flat: jax.Array, shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    """Cuts a vector into consecutive arrays of the given shapes."""
    parts, start = [], 0
    for shape in shapes:
        stop = start + math.prod(shape)
        parts.append(flat[start:stop].reshape(shape))
        start = stop
    return parts


def _fan_in(kernel: jax.Array) -> int:
    return math.prod(kernel.shape[:-1])
