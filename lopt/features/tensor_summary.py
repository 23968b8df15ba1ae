"""What VeLO's tensor-level network sees of one tensor: its accumulators' moments, against the tensor's size.

Computed from the accumulators *before* this step's gradient. Momenta, second moment and parameters are divided by
the tensor's root mean square; averages enter on a clipped logarithmic scale.

[1] Metz et al. 2022, "VeLO", App. B.2. Where the text and the published network differ, this is the network:
`var_rms` is taken around the mean of each *momentum*, so it has one entry per momentum decay.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt.features.published import Accumulators
from lopt.features.stacks import Stack, tensor_mean

NUM_RANKS = 5
SMALL_TENSOR = 4_096
"""Elements up to which moments are rounded exactly as the published network rounds them."""


def clipped_log(x: jax.Array) -> jax.Array:
    """Returns ½·clip(log(1e-8 + |10x|), −5, 5), elementwise."""
    return 0.5 * jnp.clip(jnp.log(1e-8 + jnp.abs(10.0 * x)), -5.0, 5.0)


def rank_one_hot(shape: tuple[int, ...]) -> jax.Array:
    """Returns the number of axes longer than 1, one-hot: [5]; zeros beyond four."""
    rank = sum(size > 1 for size in shape)
    return (jnp.arange(NUM_RANKS) == rank).astype(jnp.float32)


def summarize_tensors(
    stack: Stack,
    acc: Accumulators,
    mean_square: jax.Array,
    fraction: jax.Array,
    loss: jax.Array,
    names: tuple[str, ...],
) -> jax.Array:
    """Returns the features of every tensor of a stack, in alphabetical order of `names`: [k, num_features].

    Args:
      stack: The tensors.
      acc: Float32 accumulators before this step, [k, *shape].
      mean_square: Mean p² per tensor, [k, 1, …].
      fraction: Features of the fraction trained, [9].
      loss: Loss features, [9].
      names: Which summaries to compute.
    """
    size = jax.lax.rsqrt(jnp.maximum(1e-9, mean_square))
    moments = _small_moments if math.prod(stack.shape) <= SMALL_TENSOR else _large_moments
    columns = {
        name: [clipped_log(x.reshape(stack.num_tensors, 1)) for x in values]
        for name, values in moments(stack, acc, size)._asdict().items()
    }
    tile = lambda v: jnp.broadcast_to(v[None], (stack.num_tensors, v.size))
    shared = {"fraction_left": fraction, "loss_features": loss, "rank": rank_one_hot(stack.shape)}
    blocks = {name: tile(values) for name, values in shared.items()}
    blocks |= {name: jnp.concatenate(values, axis=1) for name, values in columns.items()}
    return jnp.concatenate([blocks[name] for name in sorted(names)], axis=1)


class _Moments(NamedTuple):
    """Moments of the accumulators over each tensor, relative to the tensor's size: [k, 1, …] each."""

    mean_rms: list[jax.Array]
    var_m: list[jax.Array]
    var_rms: list[jax.Array]


def _small_moments(stack: Stack, acc: Accumulators, size: jax.Array) -> _Moments:
    """Takes the published network's operations one by one, so that they round as they do there.

    The controller amplifies a last bit ten times, and the path of a tensor of one element may cross its start,
    where a few last bits are all that its displacement has.
    """
    momenta, seconds = [m * size for m in acc.momenta], [v * size for v in acc.second_moments]
    means = [tensor_mean(stack, m) for m in momenta]
    around = lambda x, center: tensor_mean(stack, jnp.square(x - center))
    return _Moments(
        mean_rms=[tensor_mean(stack, v) for v in seconds],
        var_m=[around(m, mean) for m, mean in zip(momenta, means, strict=True)],
        var_rms=[around(seconds[0], mean) for mean in means],
    )


def _large_moments(stack: Stack, acc: Accumulators, size: jax.Array) -> _Moments:
    """Returns the same but for rounding, without a copy of the momenta: a fifth of an update's time less."""
    means = [tensor_mean(stack, m) for m in acc.momenta]
    rms_means = [tensor_mean(stack, v) for v in acc.second_moments]
    around = lambda x, center: tensor_mean(stack, jnp.square(x - center))
    # mean (v − mean m)² = var v + (mean v − mean m)²: one pass over v instead of one per momentum.
    spread = around(acc.second_moments[0], rms_means[0])
    return _Moments(
        mean_rms=[mean * size for mean in rms_means],
        var_m=[around(m, mean) * size * size for m, mean in zip(acc.momenta, means, strict=True)],
        var_rms=[(spread + jnp.square(rms_means[0] - mean)) * size * size for mean in means],
    )


def summary_sizes(num_momenta: int, num_second_moments: int) -> dict[str, int]:
    """Returns how many numbers each summary is; the names are the known ones."""
    return {
        "fraction_left": 9,
        "loss_features": 9,
        "mean_rms": num_second_moments,
        "rank": NUM_RANKS,
        "var_m": num_momenta,
        "var_rms": num_momenta,
    }
