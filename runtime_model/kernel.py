"""Kernel ridge regression of log seconds on configuration features: the base that the deep set corrects.

    k(x, y) = smooth · exp(−|x − y|² / (2 · length²)) + linear · x·y + constant

The linear part extrapolates (cost is close to a product of powers); the smooth part bends it where
overheads take over. Every key and category has a coordinate; costs count most, then numbers, then
categories.

The weights come from a grid search by 5-fold error on 60 image configurations timed twice, in wall and in CPU
seconds, on a busy 2-core machine: median relative error 27 % and 25 %, 90th percentile 81 % and 67 %. Ridge
regression without the smooth part reached 30 % and 146 % (wall). The two measurements of a configuration
themselves differed by 19 % in the median. The linear part has more weight than won, because it extrapolates.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from runtime_model.features import NUMBER, ConfigFeatures, Vocabulary

COST_WEIGHT, NUMBER_WEIGHT, CATEGORY_WEIGHT = 4.0, 0.5, 0.2
SMOOTH, LINEAR, CONSTANT = 3.0, 1.0, 4.0
LENGTH = 1.5
NOISE = 0.05
"""Variance of the log seconds that a configuration's features do not explain."""


def coordinate_weights(vocabulary: Vocabulary) -> np.ndarray:
    """Returns [num_keys + num_values]: how much each coordinate counts. Unknown rows count nothing."""
    keys = [COST_WEIGHT if "cost" in key.split(".") else NUMBER_WEIGHT for key in vocabulary.keys]
    return np.asarray([0.0, *keys, 0.0, 0.0, *[CATEGORY_WEIGHT] * len(vocabulary.values)], np.float32)


def coordinates(features: ConfigFeatures, weights: jax.Array, num_keys: int) -> jax.Array:
    """Returns [N, D]: per key its number (a list's are summed), per category how often it occurs, weighted.

    Args:
      features: Of N configurations.
      weights: [D], as `coordinate_weights` gives them; D = num_keys + num_values.
      num_keys: Where the categories' coordinates begin.
    """
    mask = jnp.asarray(features.mask)
    is_number = (jnp.asarray(features.value_ids) == NUMBER).astype(jnp.float32)
    rows = jnp.arange(mask.shape[0])[:, None]
    out = jnp.zeros((mask.shape[0], weights.shape[0]), jnp.float32)
    out = out.at[rows, features.key_ids].add(features.numbers * is_number * mask)
    out = out.at[rows, num_keys + jnp.asarray(features.value_ids)].add((1.0 - is_number) * mask)
    return out * weights[None, :]


def kernel(left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns k [N, S] between coordinates [N, D] and [S, D]."""
    dots = left @ right.T
    distance = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2.0 * dots
    return SMOOTH * jnp.exp(-jnp.maximum(distance, 0.0) / (2.0 * LENGTH**2)) + LINEAR * dots + CONSTANT


def solve(gram: jax.Array, target: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Fits the rows whose `weight` is 1.

    Args:
      gram: [N, N] kernel between all rows.
      target: [N].
      weight: [N], 0 or 1.

    Returns:
      Coefficients [N] (0 for rows left out), and each fitted row's leave-one-out residual [N] (0 elsewhere):
      what the regression would miss it by, had it not seen it.
    """
    both = weight[:, None] * weight[None, :]
    inverse = jnp.linalg.inv(gram * both + NOISE * jnp.eye(gram.shape[0], dtype=gram.dtype))
    coefficients = weight * (inverse @ (weight * target))
    return coefficients, coefficients / jnp.diagonal(inverse)
