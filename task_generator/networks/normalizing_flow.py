"""Normalising flows on vectors: invertible maps whose Jacobian determinant is a product of scales.

Both kinds stack layers that shift and scale each number by what a fully connected network computes from others:

    autoregressive (Papamakarios et al. 2017, arXiv:1705.07057): number i from those before it, the order reversed
        from layer to layer. One network with masked kernels, MADE (Germain et al. 2015, arXiv:1502.03509).
    coupling (Dinh et al. 2017, arXiv:1605.08803): the odd numbers from the even ones, then the even from the odd.

A layer maps x to (x − shift)·exp(−log_scale), log_scale within ±`LOG_SCALE_BOUND` by a tanh, so that no initial
value and no optimizer's step makes a scale overflow. Masks are comparisons of indices, made in the program.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from task_generator.nn import Activation, Dense, zeros

LOG_SCALE_BOUND = 4.0

Transformed = tuple[jax.Array, jax.Array]
"""A vector per example [batch, d] and ln |det Jacobian| of the map to it [batch]."""


class MaskedDense(nn.Module):
    """An affine layer without the connections from a degree to a lower one (`strict`: nor to the same)."""

    features: int
    strict: bool

    @nn.compact
    def __call__(self, x: jax.Array, input_degrees: jax.Array, output_degrees: jax.Array) -> jax.Array:
        """Maps [batch, in] to [batch, features]; the degrees are int32 [in] and [features]."""
        kernel = self.param("kernel", zeros, (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        lowest = input_degrees[:, None] + int(self.strict)
        return x @ jnp.where(output_degrees[None, :] >= lowest, kernel, 0.0) + bias[None, :]


class Made(nn.Module):
    """A masked network: output i depends on the inputs before i (after i, if `is_reversed`)."""

    hidden_sizes: tuple[int, ...]
    is_reversed: bool

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> Transformed:
        """Maps [batch, d] to the shifts and the log-scales, [batch, d] each."""
        size = x.shape[-1]
        order = jnp.arange(size, dtype=jnp.int32)
        order = size - 1 - order if self.is_reversed else order
        degrees, hidden = order, x
        for features in self.hidden_sizes:
            next_degrees = spread_degrees(features, size)
            hidden = activation(MaskedDense(features, strict=False)(hidden, degrees, next_degrees))
            degrees = next_degrees
        both = MaskedDense(2 * size, strict=True, name="output")(hidden, degrees, jnp.tile(order, 2))
        return both[:, :size], bounded(both[:, size:])


def spread_degrees(count: int, num_inputs: int) -> jax.Array:
    """Returns `count` degrees, int32, evenly over 0, …, num_inputs − 2, the last included.

    Those are the degrees that some output can read. Germain et al. draw them; cyclic ones would leave the later
    inputs unread where there are more than units.
    """
    index = jnp.arange(1, count + 1, dtype=jnp.int32)
    return (index * (num_inputs - 1) + count - 1) // count - 1


class Conditioner(nn.Module):
    """A fully connected network from the numbers that stay to shifts and log-scales of those that move."""

    hidden_sizes: tuple[int, ...]
    output_size: int

    @nn.compact
    def __call__(self, x: jax.Array, activation: Activation) -> Transformed:
        """Maps [batch, in] to the shifts and the log-scales, [batch, output_size] each."""
        for features in self.hidden_sizes:
            x = activation(Dense(features)(x))
        both = Dense(2 * self.output_size, name="output")(x)
        return both[:, : self.output_size], bounded(both[:, self.output_size :])


def bounded(raw: jax.Array) -> jax.Array:
    """Returns log-scales: `raw` near zero, within ±`LOG_SCALE_BOUND` anywhere."""
    return LOG_SCALE_BOUND * jnp.tanh(raw / LOG_SCALE_BOUND)


class AutoregressiveFlow(nn.Module):
    """A stack of masked autoregressive layers. Its inverse takes d passes through each."""

    num_layers: int
    hidden_sizes: tuple[int, ...]

    def setup(self) -> None:
        """Declares one network per layer, every second one in reversed order."""
        self.layers = [Made(self.hidden_sizes, is_reversed=i % 2 == 1) for i in range(self.num_layers)]

    def __call__(self, x: jax.Array, activation: Activation) -> Transformed:
        """Maps data [batch, d] to noise."""
        log_det = jnp.zeros(x.shape[:1], x.dtype)
        for layer in self.layers:
            shift, log_scale = layer(x, activation)
            x = (x - shift) * jnp.exp(-log_scale)
            log_det = log_det - log_scale.sum(axis=-1)
        return x, log_det

    def inverse(self, noise: jax.Array, activation: Activation) -> jax.Array:
        """Maps noise [batch, d] back to data: a sample, for standard normal noise."""
        for layer in reversed(self.layers):

            def sharpen(
                _: jax.Array, x: jax.Array, layer: Made = layer, noise: jax.Array = noise
            ) -> jax.Array:
                shift, log_scale = layer(x, activation)
                return noise * jnp.exp(log_scale) + shift

            # Pass i makes the i-th number right, whatever the later ones were.
            noise = lax.fori_loop(0, noise.shape[-1], sharpen, jnp.zeros_like(noise))
        return noise


class CouplingFlow(nn.Module):
    """A stack of affine coupling layers on the even and the odd numbers of a vector of `size` ≥ 2."""

    num_layers: int
    hidden_sizes: tuple[int, ...]
    size: int

    def setup(self) -> None:
        """Declares one network per layer; the first moves the odd numbers."""
        moving = (self.size // 2, (self.size + 1) // 2)
        self.layers = [Conditioner(self.hidden_sizes, moving[i % 2]) for i in range(self.num_layers)]

    def __call__(self, x: jax.Array, activation: Activation) -> Transformed:
        """Maps data [batch, d] to noise, the even numbers before the odd ones."""
        halves = [x[:, 0::2], x[:, 1::2]]
        log_det = jnp.zeros(x.shape[:1], x.dtype)
        for i, layer in enumerate(self.layers):
            stays, moves = i % 2, 1 - i % 2
            shift, log_scale = layer(halves[stays], activation)
            halves[moves] = (halves[moves] - shift) * jnp.exp(-log_scale)
            log_det = log_det - log_scale.sum(axis=-1)
        return jnp.concatenate(halves, axis=-1), log_det

    def inverse(self, noise: jax.Array, activation: Activation) -> jax.Array:
        """Maps noise [batch, d] back to data: a sample, for standard normal noise."""
        num_even = (self.size + 1) // 2
        halves = [noise[:, :num_even], noise[:, num_even:]]
        for i, layer in reversed(list(enumerate(self.layers))):
            stays, moves = i % 2, 1 - i % 2
            shift, log_scale = layer(halves[stays], activation)
            halves[moves] = halves[moves] * jnp.exp(log_scale) + shift
        data = jnp.zeros_like(noise).at[:, 0::2].set(halves[0])
        return data.at[:, 1::2].set(halves[1])
