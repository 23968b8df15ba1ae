"""Losses that several families share."""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp

LossName = Literal["cross_entropy", "mse_onehot", "mae_onehot", "huber_onehot"]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean of −log softmax(logits [..., c]) at labels [...], float32.

    Selects by comparison: a gather's gradient is a scatter, which is slow on CPUs.
    """
    logits = logits.astype(jnp.float32)
    classes = jnp.arange(logits.shape[-1], dtype=labels.dtype).reshape((1,) * labels.ndim + (-1,))
    chosen = labels[..., None] == classes
    return -jnp.mean(jnp.sum(jnp.where(chosen, jax.nn.log_softmax(logits), 0.0), axis=-1))


def classification_loss(kind: LossName, outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean loss of outputs [..., c] at labels [...], float32.

    The regressions compare the outputs, as they are, with the labels as one-hot vectors, and average over the
    classes too. Huber's loss is half the square up to an error of 1 and linear from there.
    """
    if kind == "cross_entropy":
        return cross_entropy(outputs, labels)
    error = outputs.astype(jnp.float32) - jax.nn.one_hot(labels, outputs.shape[-1], dtype=jnp.float32)
    if kind == "mse_onehot":
        return jnp.mean(jnp.square(error))
    size = jnp.abs(error)
    if kind == "mae_onehot":
        return jnp.mean(size)
    clipped = jnp.minimum(size, 1.0)
    return jnp.mean(clipped * (size - 0.5 * clipped))


def chance_loss(kind: LossName, num_classes: int) -> float:
    """Returns the loss of the best constant output on balanced classes: the guess that knows no input.

    It is ln c for cross-entropy (equal logits), and with outputs 1/c: (c − 1)/c² for the squared error and half
    of it for Huber's. The mean absolute error is least at the median, an output of zero: 1/c.
    """
    c = num_classes
    levels = {"cross_entropy": math.log(c), "mse_onehot": (c - 1) / c**2, "mae_onehot": 1 / c}
    return levels[kind] if kind in levels else levels["mse_onehot"] / 2
