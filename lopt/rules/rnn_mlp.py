"""What `rnn_mlp` computes for one stack of tensors: the per-parameter network's steps and messages to the LSTMs.

The network is 23 → 32 → 32 → 2 for each parameter. What it is told about the tensor is the same for all of its
parameters and enters the first layer as a bias per tensor. The message is the mean of sixteen more outputs; the
mean of a linear layer's outputs is its output for the mean, so only the last hidden layer is averaged and none of
the sixteen is computed for any parameter.

[1] Metz et al. 2020, "Tasks, stability, architecture, and compute", App. C (`compute_update_and_next_state`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt import nn
from lopt.features import published as pf
from lopt.features.chunks import over_parameters
from lopt.features.rolling import rolling_features
from lopt.features.stacks import Stack
from lopt.rules.per_parameter_network import rms_scales

CHUNK_SIZE = 16384
"""Parameters per piece: half as many cost more to start, four times as many no longer stay in cache."""


class RuleSettings(NamedTuple):
    """Constants of the rule."""

    features: tuple[str, ...]
    """Groups of `lopt.features.rolling`."""
    epsilon: float
    """Under the root of a feature's mean square."""
    bound: float | None
    """Normalised features are halved and clipped to ± this; None does neither."""
    step_mult: float
    exp_mult: float


class _Layer(NamedTuple):
    weight: jax.Array  # [out, in]
    bias: jax.Array  # [out, b] or [out, 1]: of each tensor, or of all


def steps_and_messages(
    stack: Stack,
    settings: RuleSettings,
    network: nn.Weights,
    context: jax.Array,
    param: jax.Array,
    grad: jax.Array,
    acc: pf.Accumulators,
    progress: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns the updates of a stack, [k, *shape], and the message of each of its tensors, [k, n].

    Args:
      stack: The tensors.
      settings: Constants.
      network: `w0, b0, w1, …`; the rows of `w0` are the features, then the context; the outputs are direction, log
        magnitude and the n entries of the message.
      context: What the network is told about each tensor, [k, num_context].
      param: [k, *shape], like the next.
      grad: The gradient as the accumulators saw it.
      acc: The accumulators, brought forward by it.
      progress: The run's step counter, scalar: never negative.
    """
    features = rolling_features(settings.features, param, grad, acc)
    scales = rms_scales(stack, features, epsilon=settings.epsilon)
    last = len(network) // 2 - 1
    of_context = {"w": network["w0"][len(features) :], "b": network["b0"]}
    # Turned around once and not by every piece, which the compiler would otherwise fold into each product.
    weights = jax.lax.optimization_barrier(
        [
            network["w0"][: len(features)].T,
            *[network[f"w{i}"].T for i in range(1, last)],
            network[f"w{last}"][:, :2].T,
        ]
    )
    shared = [network[f"b{i}"] for i in range(1, last)] + [network[f"b{last}"][:2]]

    def piece(values: dict[str, jax.Array], arrays: tuple[jax.Array, jax.Array, pf.Accumulators]) -> _Piece:
        biases = [values["bias"].T] + [jnp.expand_dims(b, 1) for b in shared]
        layers = [_Layer(w, b) for w, b in zip(weights, biases, strict=True)]
        return _piece(settings, layers, _inputs(settings, values["scales"], *arrays))

    @jax.jit
    def whole() -> _Piece:
        values = {"bias": nn.linear(of_context, context), "scales": scales}
        return over_parameters(stack, piece, values, (param, grad, acc), chunk_size=CHUNK_SIZE)

    # A border, as in `lopt.features.compiled_once`: without it the accumulators are computed a second time, cut up.
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(whole))
    steps, sums = jax.lax.cond(progress >= 0, whole, lambda: nothing)
    of_message = {"w": network[f"w{last}"][:, 2:], "b": network[f"b{last}"][2:]}
    return steps, nn.linear(of_message, sums / math.prod(stack.shape))


_Piece = tuple[jax.Array, jax.Array]


def _inputs(
    settings: RuleSettings, scales: jax.Array, param: jax.Array, grad: jax.Array, acc: pf.Accumulators
) -> jax.Array:
    """Returns the normalised features of parameters [b, *dims] of b tensors: [num_features, b, *dims]."""
    features = rolling_features(settings.features, param, grad, acc)
    per_tensor = lambda x: jnp.expand_dims(x, tuple(range(1, param.ndim)))
    normalized = [f * per_tensor(scales[:, i]) for i, f in enumerate(features)]
    if settings.bound is not None:
        normalized = [jnp.clip(0.5 * f, -settings.bound, settings.bound) for f in normalized]
    return jnp.stack(normalized)


def _piece(settings: RuleSettings, layers: list[_Layer], x: jax.Array) -> _Piece:
    """Returns the updates, [b, *dims], and the sums of the last hidden layer over these parameters, [b, hidden]."""
    dims = tuple(range(2, x.ndim))
    affine = lambda layer, x: jnp.tensordot(layer.weight, x, axes=1) + jnp.expand_dims(layer.bias, dims)
    for layer in layers[:-1]:
        x = jax.nn.relu(affine(layer, x))
    direction, magnitude = affine(layers[-1], x)
    step = -(direction * jnp.exp(settings.exp_mult * magnitude)) * settings.step_mult
    return step, jnp.sum(x, axis=dims).T
