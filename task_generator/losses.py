"""Losses that several families share."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean of −log softmax(logits [..., c]) at labels [...], float32.

    Selects by comparison: a gather's gradient is a scatter, which is slow on CPUs.
    """
    logits = logits.astype(jnp.float32)
    classes = jnp.arange(logits.shape[-1], dtype=labels.dtype).reshape((1,) * labels.ndim + (-1,))
    chosen = labels[..., None] == classes
    return -jnp.mean(jnp.sum(jnp.where(chosen, jax.nn.log_softmax(logits), 0.0), axis=-1))
