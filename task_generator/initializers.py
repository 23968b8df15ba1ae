"""Initialisers, for a whole network at once: one draw of normal numbers, one choice of what becomes of them.

Metz et al. 2022 (arXiv:2211.09760), App. C.2.1. Every kernel is [..., fan_out] and fan_in counts all leading
axes; biases start at zero. Drawing once and switching once, instead of per layer, compiles three to five
times as fast: a random generator is one of the larger things to compile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lopt.registry import lookup
from lopt.types import Params, PyTree

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


def fan_in_truncated_normal(noise: jax.Array) -> jax.Array:
    """Returns normal weights of deviation 1/√fan_in, folded back where they lie beyond two deviations.

    Stands for the truncated normal of Haiku's and Flax's layers: of the same range, made of the same draws.
    """
    uniform = lax.erf(noise * jnp.float32(math.sqrt(0.5)))  # on (−1, 1)
    inside = lax.erf_inv(uniform * jnp.float32(math.erf(math.sqrt(2.0)))) * jnp.float32(math.sqrt(2.0))
    return inside * jnp.float32(_fan_in(noise) ** -0.5)


SAMPLED_INITIALIZERS: dict[str, Initializer] = {
    "orthogonal": orthogonal,
    "uniform": fan_in_uniform,
    "normal": fan_in_normal,
}
"""What the prior draws from, uniformly."""

INITIALIZERS: dict[str, Initializer] = {
    **SAMPLED_INITIALIZERS,
    "truncated_normal": fan_in_truncated_normal,
}
"""Also what only a static override can name: the usual start of a library's layers."""

if TYPE_CHECKING:
    InitializerName = str
else:  # the names are the registry's keys, so that a new entry is one line
    InitializerName = Literal[tuple(INITIALIZERS)]


class LeafInit(NamedTuple):
    """How one parameter starts; "kernel" leaves it to the chosen initialiser."""

    kind: Literal["kernel", "normal", "uniform", "constant", "identity"]
    value: float = 1.0
    """Multiplies the draw (for "uniform", from ±1) or the identity matrix. A constant itself."""


LeafRule = Callable[[str, tuple[int, ...]], LeafInit]
"""(path like "Dense_0/kernel", shape) → how it starts."""


def default_leaf_init(path: str, shape: tuple[int, ...]) -> LeafInit:
    """Returns ones for what is called `scale`, the chosen initialiser for other matrices, zeros for the rest."""
    if path.rsplit("/", 1)[-1] == "scale":
        return LeafInit("constant", 1.0)
    return LeafInit("kernel") if len(shape) > 1 else LeafInit("constant", 0.0)


def initialize(
    template: Params,
    key: jax.Array,
    kind: str | jax.Array,
    scale: float | jax.Array,
    rule: LeafRule = default_leaf_init,
) -> Params:
    """Returns fresh float32 parameters.

    Args:
      template: The parameters' shapes.
      key: What the parameters depend on.
      kind: Name of an initialiser, or an index into `SAMPLED_INITIALIZERS` (int32 [], may be traced).
      scale: Multiplies every leaf that is a "kernel".
      rule: How each leaf starts.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(template)
    leaves = [leaf for _, leaf in paths]
    rules = [rule(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape) for path, leaf in paths]
    drawn = [i for i, r in enumerate(rules) if r.kind not in ("constant", "identity")]
    numbers = jax.random.normal(key, (sum(leaves[i].size for i in drawn),), jnp.float32)
    noise = dict(zip(drawn, split_vector(numbers, [leaves[i].shape for i in drawn]), strict=True))
    kernels = [i for i in drawn if rules[i].kind == "kernel"]

    def all_kernels(initializer: Initializer) -> Callable[[list[jax.Array]], list[jax.Array]]:
        return lambda noise: [initializer(x) for x in noise]

    inputs = [noise[i] for i in kernels]
    if not kernels:
        weights: list[jax.Array] = []
    elif isinstance(kind, str):
        weights = all_kernels(lookup(INITIALIZERS, kind, kind="initializer"))(inputs)
    else:
        weights = lax.switch(kind, [all_kernels(fn) for fn in SAMPLED_INITIALIZERS.values()], inputs)
    factor = jnp.asarray(scale, jnp.float32)
    by_kernel = {i: weight * (factor * rules[i].value) for i, weight in zip(kernels, weights, strict=True)}
    filled = [
        by_kernel[i] if i in by_kernel else _other(rules[i], noise.get(i), leaf.shape)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, filled)


def _other(rule: LeafInit, noise: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    if rule.kind == "identity":
        return rule.value * jnp.eye(shape[0], shape[1], dtype=jnp.float32)
    if noise is None:
        return jnp.full(shape, rule.value, jnp.float32)
    if rule.kind == "uniform":
        return rule.value * lax.erf(noise * jnp.float32(math.sqrt(0.5)))
    return rule.value * noise


def initialize_state(template: PyTree) -> PyTree:
    """Returns a network's other collections at their start: variances are one, everything else zero."""

    def start(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        is_variance = jax.tree_util.keystr(path, simple=True, separator="/").endswith("var")
        return jnp.full(leaf.shape, float(is_variance), leaf.dtype)

    return jax.tree_util.tree_map_with_path(start, template)


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
