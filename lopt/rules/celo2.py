"""What `celo2` computes for one stack of tensors: the network's direction, AdamW's direction, the schedule.

[1] Celo2, arXiv:2602.19142 (2026).
[2] amoudgl/celo (MIT): the released transformation.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lopt.features import published as pf
from lopt.features.accumulators import Decay, debias, update_ema
from lopt.features.compiled_once import compiled_once
from lopt.features.matrices import as_matrices, matrix_stack
from lopt.features.orthogonalize import orthogonalize
from lopt.features.progress import cosine_decay
from lopt.features.stacks import Stack, per_tensor
from lopt.rules.per_parameter_network import DenseLayer, narrow_mlp, rms_scales

FEATURES = tuple(pf.PUBLISHED_FEATURES)
"""Feature groups of the released network, in its order."""
VECTOR_FEATURES = FEATURES[: FEATURES.index("row")]
"""Those of vectors and scalars, whose network is without the inputs that need rows and columns."""
INVERSE_ROOT_EPSILON = 1e-8
NORMALIZER_EPSILON = 1e-9
MAX_SQUARABLE = 1e15
"""Gradients that AdamW sees are clipped here, only so that their square stays finite in float32."""


@partial(jax.jit, static_argnames=("stack", "features", "is_orthogonalized", "keeps_still"))
def network_direction(
    stack: Stack,
    layers: list[DenseLayer],
    param: jax.Array,
    grad: jax.Array,
    acc: pf.Accumulators,
    progress: jax.Array,
    *,
    features: tuple[str, ...],
    is_orthogonalized: bool,
    keeps_still: bool,
) -> jax.Array:
    """Returns the network's direction with an RMS of 1 over every matrix (or vector): [k, *shape].

    Compiled by itself where it is not part of a compiled step: once per shape, not at every call.

    Args:
      stack: The tensors.
      layers: The network's; the first one's rows are those of `features`, the first output unit is the direction.
      param: [k, *shape], like the next.
      grad: The gradient as the accumulators saw it.
      acc: The accumulators, brought forward by it.
      progress: The run's step counter, scalar: never negative.
      features: Names of feature groups that these tensors have (see `VECTOR_FEATURES`).
      is_orthogonalized: Whether matrices are orthogonalised.
      keeps_still: Whether parameters without any gradient so far have direction zero and do not count in the RMS.
    """
    matrices = matrix_stack(stack)
    direction = compiled_once(
        progress, lambda: _network_output(stack, matrices, layers, param, grad, acc, features)
    )
    moves = as_matrices(stack, _has_moved(acc)) if keeps_still else None
    direction = _only(direction, moves)
    if is_orthogonalized and matrices.is_factored:
        direction = _only(orthogonalize(direction), moves)
    return _normalized(matrices, direction, moves).reshape(param.shape)


def _network_output(
    stack: Stack,
    matrices: Stack,
    layers: list[DenseLayer],
    param: jax.Array,
    grad: jax.Array,
    acc: pf.Accumulators,
    features: tuple[str, ...],
) -> jax.Array:
    """Returns the first output unit, [number of matrices, n, m]; [k, n] for vectors."""
    inputs = pf.feature_inputs(stack, param, grad, acc, vector_momentum_epsilon=INVERSE_ROOT_EPSILON)
    inputs = inputs._replace(
        inverse_roots=tuple(jax.lax.rsqrt(v + INVERSE_ROOT_EPSILON) for v in acc.second_moments)
    )
    if stack.is_factored:
        inputs = jax.tree.map(lambda x: as_matrices(stack, x), inputs)
    scales = rms_scales(matrices, pf.compute_features(features, inputs), epsilon=NORMALIZER_EPSILON)
    # Computed a second time: shared with the normaliser, every feature would be written to memory in between.
    values = pf.compute_features(features, jax.lax.optimization_barrier(inputs))
    *others, last = layers
    network = [*others, DenseLayer(last.weight[:, :1], last.bias[:1])]
    if math.prod(matrices.shape) < layers[0].weight.size:
        # Folded into the weights of every matrix, the scales would take more memory than the parameters.
        values = [value * per_tensor(matrices, scales[:, i]) for i, value in enumerate(values)]
        return narrow_mlp(matrices, network, values)[0]
    return narrow_mlp(matrices, network, values, scales=scales)[0]


def _has_moved(acc: pf.Accumulators) -> jax.Array:
    """Whether any accumulator remembers a gradient: the second moment, or where it underflows, the momenta."""
    seen = acc.second_moments[-1] > 0
    for average in (*acc.second_moments[:-1], *acc.momenta):
        seen = seen | (average != 0)
    return seen


def _only(direction: jax.Array, moves: jax.Array | None) -> jax.Array:
    return direction if moves is None else jnp.where(moves, direction, jnp.zeros_like(direction))


def _normalized(matrices: Stack, direction: jax.Array, moves: jax.Array | None) -> jax.Array:
    axes = matrices.tensor_axes
    total = jnp.sum(jnp.square(direction), axis=axes, keepdims=True)
    if moves is None:
        mean_square = total / np.prod(matrices.shape, dtype=np.float32)
    else:
        mean_square = total / jnp.maximum(jnp.sum(moves.astype(jnp.float32), axis=axes, keepdims=True), 1.0)
    return direction * jax.lax.rsqrt(NORMALIZER_EPSILON + mean_square)


class AdamMoments(NamedTuple):
    """Adam's accumulators of one stack, [k, *shape]."""

    momentum: jax.Array
    second_moment: jax.Array


def adam_step(
    moments: AdamMoments,
    grad: jax.Array,
    decays: tuple[Decay, Decay],
    num_updates: jax.Array | None,
    *,
    epsilon: float,
) -> tuple[AdamMoments, jax.Array]:
    """Returns float32 moments brought forward by the gradient, and Adam's direction m·(v + ε)^(−1/2), [k, *shape].

    Args:
      moments: Those of the step before.
      grad: [k, *shape].
      decays: Of the momentum and of the second moment.
      num_updates: This one included, scalar float32, to correct the moments for their start at zero; None: as they
        are.
      epsilon: Positive.
    """
    grad = jnp.clip(grad, -MAX_SQUARABLE, MAX_SQUARABLE)
    momentum = update_ema(moments.momentum.astype(jnp.float32), grad, decays[0])
    second = update_ema(moments.second_moment.astype(jnp.float32), jnp.square(grad), decays[1])
    new = AdamMoments(momentum, second)
    if num_updates is not None:
        momentum, second = debias(momentum, decays[0], num_updates), debias(second, decays[1], num_updates)
    return new, momentum * jax.lax.rsqrt(second + epsilon)


def warmup_cosine(
    progress: jax.Array, num_steps: jax.Array, *, warmup_fraction: float, final_fraction: float
) -> jax.Array:
    """Returns the learning rate's schedule at the update number `progress`, in [0, 1].

    It rises linearly over the first `warmup_fraction` of `num_steps` updates, starting above zero, and follows half
    a cosine down to `final_fraction` at `num_steps`, where it stays. Both numbers of updates are scalars, and the
    result is, too, in float32.
    """
    count = progress.astype(jnp.float32)
    warmup = warmup_fraction * num_steps
    rising = jnp.minimum((count + 1.0) / jnp.maximum(warmup, 1.0), 1.0)
    return rising * (
        final_fraction + (1.0 - final_fraction) * cosine_decay(count - warmup, num_steps - warmup)
    )
