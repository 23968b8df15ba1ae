"""The parts of a task that vary inside one compiled program: activation, initialiser, initial scale.

Metz et al. 2022 (arXiv:2211.09760), App. C.2. The activation and the kind of initialiser *select code*, so
they are one per work unit (axis None: an unbatched `lax.switch` runs a single branch); the scale is one per
task. A family may instead fix a name statically; then no switch is compiled.

Deviations from the released code, all towards the paper's text: the eleven activations have equal weight (the
release draws relu and silu twice) and leaky relu has its usual slope of 0.01 (the release: −0.5); the three
initialisers have equal weight, and the scale multiplies the drawn weights (the release has five slots, in
three of which the scale acts on the variance). GELU is the tanh approximation, as there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lopt.registry import lookup
from task_generator.initializers import SAMPLED_INITIALIZERS

Activation = Callable[[jax.Array], jax.Array]

SAMPLED_ACTIVATIONS: dict[str, Activation] = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "selu": jax.nn.selu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,  # the paper lists both names; they are the same function
    "gelu": jax.nn.gelu,
    "leaky_relu": jax.nn.leaky_relu,
    "cos": jnp.cos,
    "sin": jnp.sin,
}
"""What the prior draws from, uniformly."""

ACTIVATIONS: dict[str, Activation] = {
    **SAMPLED_ACTIVATIONS,
    "elu": jax.nn.elu,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "very_leaky_relu": functools.partial(jax.nn.leaky_relu, negative_slope=1 / 3),
}
"""Also what only a static override can name: kept out of training, for held-out evaluation."""

SCALE_RANGE = (0.5, 2.0)


class NetworkDynamic(NamedTuple):
    """One draw of the C.2 choices."""

    activation: jax.Array  # int32 [], index into SAMPLED_ACTIVATIONS
    initializer: jax.Array  # int32 [], index into SAMPLED_INITIALIZERS
    init_scale: jax.Array  # float32 []


NETWORK_AXES = NetworkDynamic(activation=None, initializer=None, init_scale=0)  # type: ignore[arg-type]

NOTHING_DRAWN = NetworkDynamic(activation=None, initializer=None, init_scale=None)  # type: ignore[arg-type]
"""Stands in for a draw where a configuration fixes all three."""


class NoDynamic(NamedTuple):
    """The dynamic configuration of a family in which everything is static."""


NO_DYNAMIC_AXES = NoDynamic()


def sample_network_dynamic(key: jax.Array) -> NetworkDynamic:
    """Draws activation, initialiser and scale from their priors."""
    draws = jax.random.uniform(key, (3,), jnp.float32)  # one draw for all: a generator costs compile time
    low, high = SCALE_RANGE
    return NetworkDynamic(
        activation=uniform_index(draws[0], len(SAMPLED_ACTIVATIONS)),
        initializer=uniform_index(draws[1], len(SAMPLED_INITIALIZERS)),
        init_scale=low + (high - low) * draws[2],
    )


def uniform_index(draw: jax.Array, count: int) -> jax.Array:
    """Turns a uniform draw from [0, 1) into an int32 index below `count`."""
    return jnp.minimum((draw * count).astype(jnp.int32), count - 1)


@jax.custom_jvp
def switch_activation(index: jax.Array, x: jax.Array) -> jax.Array:
    """Applies the activation that `index` selects, elementwise.

    One switch computes value and derivative together, so that differentiating a network compiles one switch
    per layer instead of two, and the backward pass is a product.
    """
    return lax.switch(index, list(SAMPLED_ACTIVATIONS.values()), x)


@switch_activation.defjvp
def _switch_activation_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    index, x = primals

    def with_derivative(fn: Activation) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
        return lambda x: jax.jvp(fn, (x,), (jnp.ones_like(x),))

    value, derivative = lax.switch(index, [with_derivative(fn) for fn in SAMPLED_ACTIVATIONS.values()], x)
    return value, derivative * tangents[1]


def resolve_activation(override: str | None, dynamic: NetworkDynamic) -> Activation:
    """Returns the named activation, or without a name the one that `dynamic` selects."""
    if override is not None:
        return lookup(ACTIVATIONS, override, kind="activation")
    return lambda x: switch_activation(dynamic.activation, x)


if TYPE_CHECKING:
    ActivationName = str
else:  # the names are the registry's keys, so that a new entry is one line
    ActivationName = Literal[tuple(ACTIVATIONS)]
