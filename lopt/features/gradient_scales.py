"""Gradients averaged and scaled on several time-scales, whose decays a network chooses per parameter.

    ḡ_s ← ḡ_s·β_s + g·(1 − β_s)          λ_s ← λ_s·β'_s + ḡ_s²·(1 − β'_s)          m_s = ḡ_s / √λ_s

β_s = β^(2^−s): each time-scale is twice as long as the one before it, and β, β' of the shortest are the network's
outputs of the previous step. At the first step they are 0, so that ḡ_s = g and m_s = sign g on all scales.

[1] Wichrowska et al. 2017, "Learned Optimizers that Scale and Generalize", 3.2.2 and 3.2.3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt.features.accumulators import update_ema
from lopt.features.stacks import Stack

MEAN_SQUARE_FLOOR = 1e-30
"""Smallest λ under the root and the logarithm: gradients of 1e-14 are still scaled to one."""


class GradientScales(NamedTuple):
    """The accumulators of a stack of tensors, shortest time-scale first; arrays [k, *shape] float32."""

    averages: tuple[jax.Array, ...]
    """ḡ_s; empty where only the latest gradient is used."""
    mean_squares: tuple[jax.Array, ...]
    """λ_s."""


def init_scales(stack: Stack, num_scales: int) -> GradientScales:
    """Returns zeros for `num_scales` time-scales; a single one keeps no average (see `update_scales`)."""
    zeros = lambda n: tuple(jnp.zeros((stack.num_tensors, *stack.shape), jnp.float32) for _ in range(n))
    return GradientScales(zeros(num_scales if num_scales > 1 else 0), zeros(num_scales))


def timescale_decays(decay: jax.Array, num_scales: int) -> list[jax.Array]:
    """Returns β^(2^−s) for s = 0, 1, …: β, √β, …, each of the shape of `decay`, which is β in [0, 1]."""
    decays = [decay]
    for _ in range(num_scales - 1):
        decays.append(jnp.sqrt(decays[-1]))
    return decays


def update_scales(
    scales: GradientScales, grad: jax.Array, average_decay: jax.Array, scale_decay: jax.Array
) -> tuple[GradientScales, list[jax.Array]]:
    """Returns the accumulators brought forward, and m_s for each time-scale, of the shape of `grad`.

    Args:
      scales: The accumulators. Without averages there is one time-scale, and ḡ is the gradient itself.
      grad: [..., any shape], small enough that its square is finite.
      average_decay: β of the shortest time-scale, in [0, 1], broadcastable to `grad`. Ignored without averages.
      scale_decay: β' of the shortest time-scale, likewise.
    """
    num_scales = len(scales.mean_squares)
    averages = [
        update_ema(average, grad, decay)
        for average, decay in zip(scales.averages, timescale_decays(average_decay, num_scales), strict=False)
    ]
    signals = averages or [grad]
    mean_squares = [
        update_ema(mean_square, jnp.square(signal), decay)
        for mean_square, signal, decay in zip(
            scales.mean_squares, signals, timescale_decays(scale_decay, num_scales), strict=True
        )
    ]
    scaled = [
        signal * jax.lax.rsqrt(jnp.maximum(mean_square, MEAN_SQUARE_FLOOR))
        for signal, mean_square in zip(signals, mean_squares, strict=True)
    ]
    return GradientScales(tuple(averages), tuple(mean_squares)), scaled


def relative_log_magnitudes(scales: GradientScales) -> list[jax.Array]:
    """Returns log λ_s − mean over s of log λ_s (Eq. 4): how the gradient's size changes with averaging.

    One array per time-scale, of the accumulators' shape.
    """
    logs = [jnp.log(jnp.maximum(mean_square, MEAN_SQUARE_FLOOR)) for mean_square in scales.mean_squares]
    mean = sum(logs[1:], logs[0]) / len(logs)
    return [log - mean for log in logs]


def random_log_steps(stack: Stack, seed: int, bounds: tuple[float, float]) -> jax.Array:
    """Returns initial log step lengths between log bounds[0] and log bounds[1]: [k, *shape].

    Half of a value is its own and half its tensor's, so that tensors differ in their means too; both are uniform
    over half the range. The draws depend on `seed`, the tensor's position among the leaves and its shape only.
    """
    low, high = (0.5 * math.log(bound) for bound in bounds)

    def one(position: jax.Array) -> jax.Array:
        own, shared = jax.random.split(jax.random.fold_in(jax.random.key(seed), position))
        values = jax.random.uniform(own, stack.shape, jnp.float32, low, high)
        return values + jax.random.uniform(shared, (), jnp.float32, low, high)

    return jax.vmap(one)(jnp.asarray(stack.members, jnp.uint32))
