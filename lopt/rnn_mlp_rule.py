"""What `rnn_mlp` computes for one stack of tensors: the per-parameter network's steps and messages to the LSTMs.

The network is 23 → 32 → 32 → 2 for each parameter. What it is told about the tensor is the same for all of its
parameters and enters the first layer as a bias per tensor. The message is the mean of sixteen more outputs; the
mean of a linear layer's outputs is its output for the mean, so only the last hidden layer is averaged and none of
the sixteen is computed for any parameter.

On a CPU the stack is cut into pieces whose hidden layers stay in cache; an accelerator gets it whole.

[1] Metz et al. 2020, "Tasks, stability, architecture, and compute", App. C (`compute_update_and_next_state`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt import nn
from lopt.features.chunks import over_parameters
from lopt.features.rolling import RollingMoments, rolling_features
from lopt.features.stacks import Stack

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


class _Layers(NamedTuple):
    """The network for the features alone. The first biases are the tensors' own and come with the inputs."""

    weights: list[jax.Array]  # [out, in]
    biases: list[jax.Array]  # [out], from the second layer on


class _PerTensor(NamedTuple):
    """What the network needs to know of each tensor."""

    scales: jax.Array  # [k, num_features]
    bias: jax.Array  # [k, hidden]


_Arrays = tuple[jax.Array, jax.Array, list[jax.Array], list[jax.Array]]
"""Parameters, gradient, momenta and second moments, the latter one array per decay; [b, *dims] each."""
_Outputs = tuple[jax.Array, jax.Array]
"""Updates [b, *dims], and the last hidden layer summed over these parameters, [b, hidden]."""


def steps_and_messages(
    stack: Stack,
    settings: RuleSettings,
    network: nn.Weights,
    context: jax.Array,
    param: jax.Array,
    grad: jax.Array,
    moments: RollingMoments,
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
      grad: The gradient as the moments saw it.
      moments: Brought forward by it.
      progress: The run's step counter, scalar: never negative.
    """
    scales = _scales(stack, settings, param, grad, moments)
    rows, last = scales.shape[1], len(network) // 2 - 1
    bias = nn.linear({"w": network["w0"][rows:], "b": network["b0"]}, context)
    weights = [
        network["w0"][:rows],
        *[network[f"w{i}"] for i in range(1, last)],
        network[f"w{last}"][:, :2],
    ]
    layers = _Layers(
        # Turned around here, once: the compiler would move it into the product of every piece.
        weights=jax.lax.optimization_barrier([w.T for w in weights]),
        biases=[*[network[f"b{i}"] for i in range(1, last)], network[f"b{last}"][:2]],
    )

    def whole() -> _Outputs:
        return over_parameters(
            stack,
            lambda of_tensor, arrays: _apply(settings, layers, of_tensor, arrays),
            _PerTensor(scales, bias),
            (param, grad, list(moments.momenta), list(moments.second_moments)),
            chunk_size=CHUNK_SIZE,
        )

    # A border, as in `lopt.features.compiled_once`: without it the moments are computed a second time, cut up.
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(whole))
    steps, sums = jax.lax.cond(progress >= 0, whole, lambda: nothing)
    of_message = {"w": network[f"w{last}"][:, 2:], "b": network[f"b{last}"][2:]}
    return steps, nn.linear(of_message, sums / math.prod(stack.shape))


def _scales(
    stack: Stack, settings: RuleSettings, param: jax.Array, grad: jax.Array, moments: RollingMoments
) -> jax.Array:
    """Returns (ε + mean f²)^(−1/2) over each tensor, for each feature: [k, num_features]."""
    groups = rolling_features(settings.features, param, grad, moments)
    squares = jnp.concatenate([jnp.mean(jnp.square(f), axis=stack.tensor_axes) for f in groups])
    return jax.lax.rsqrt(settings.epsilon + squares).T


def _apply(settings: RuleSettings, layers: _Layers, of_tensor: _PerTensor, arrays: _Arrays) -> _Outputs:
    param, grad, momenta, second_moments = arrays
    dims = tuple(range(2, param.ndim + 1))
    moments = RollingMoments(jnp.stack(momenta), jnp.stack(second_moments))
    groups = rolling_features(settings.features, param, grad, moments)
    x = jnp.concatenate(groups) * jnp.expand_dims(of_tensor.scales.T, dims)
    if settings.bound is not None:
        x = jnp.clip(0.5 * x, -settings.bound, settings.bound)
    x = jax.nn.relu(jnp.tensordot(layers.weights[0], x, axes=1) + jnp.expand_dims(of_tensor.bias.T, dims))
    for weight, bias in zip(layers.weights[1:-1], layers.biases[:-1], strict=True):
        x = jax.nn.relu(jnp.tensordot(weight, x, axes=1) + jnp.expand_dims(bias, (1, *dims)))
    out = jnp.tensordot(layers.weights[-1], x, axes=1) + jnp.expand_dims(layers.biases[-1], (1, *dims))
    step = -(out[0] * jnp.exp(settings.exp_mult * out[1])) * settings.step_mult
    return step, jnp.sum(x, axis=dims).T
