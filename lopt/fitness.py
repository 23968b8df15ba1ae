"""What a task's losses are made into before they weigh its directions, so that no task shouts another down.

none           the losses themselves
unit_norm      the losses; the task's gradient is scaled to length one afterwards   VeLO, App. D.4
sign           ±½ by which twin was better                                          Metz et al. 2022, D.4
rank           centred ranks in [−½, ½] over all the task's runs                    Salimans et al. 2017, 2.1
standardized   less their mean, over their standard deviation                       Mania et al. 2018 (ARS)
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from lopt.types import Theta

TaskNormalization = Literal["none", "unit_norm", "sign", "rank", "standardized"]


def utilities(losses: jax.Array, normalization: TaskNormalization) -> jax.Array:
    """Returns the weights [N, 2] of one task's runs from their losses [N, 2]."""
    match normalization:
        case "sign":
            sign = jnp.sign(losses[:, :1] - losses[:, 1:])
            return 0.5 * jnp.concatenate([sign, -sign], axis=1)
        case "rank":
            return _centred_ranks(losses)
        case "standardized":
            return (losses - jnp.mean(losses)) / jnp.maximum(jnp.std(losses), 1e-8)
        case _:
            return losses


def _centred_ranks(losses: jax.Array) -> jax.Array:
    """Returns rank / (count − 1) − ½; equal losses share their mean rank."""
    flat = losses.reshape(-1)
    below = jnp.sum(flat[None, :] < flat[:, None], axis=1)
    above = jnp.sum(flat[None, :] > flat[:, None], axis=1)
    ranks = (below + flat.size - 1 - above).astype(jnp.float32) / 2.0
    return (ranks / (flat.size - 1) - 0.5).reshape(losses.shape)


def unit_norm(tree: Theta) -> Theta:
    """Returns the tree scaled to Euclidean norm one; an all-zero tree stays zero."""
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))
    return jax.tree.map(lambda leaf: leaf / jnp.maximum(norm, 1e-12), tree)
