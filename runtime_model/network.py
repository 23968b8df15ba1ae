"""A deep set over key/value pairs: one number per configuration, its log seconds or the logit of its validity.

Every pair becomes `key embedding + category embedding + relu(number · slope + bias of the key)`. In a mixing block
each pair goes through a layer of its own; then what it has become, the mean and the maximum over all pairs go
through a layer each, and the average of the three is what the pair goes on with, so that every pair hears of every
other. The mean over the pairs, made wider, is read by a second network. Sizes are fields; the release's are 128 per
pair, one mixing block, 512 behind the mean.

What a fit never met contributes exactly nothing: rows of keys and categories without a training row are zero
(`forget_unmet`) and stay so, having no gradient, and a pair whose key is such a row is left out like padding.

Deviations from [1] and its release [2]:

- Rows of a vocabulary, one per whole path, instead of hashes modulo 4096; the release's key embedding is a mean
  over the parts of the path (App. C.4 says a string is hashed, not which).
- One number per pair. The release gives a pair eight slots and normalises the unused ones to -1, which amounts to a
  constant per key; here that constant is the bias, drawn with the standard deviation that it has there, √(7/8). A
  list is one pair per element, so its order is not seen.
- All numbers are numbers. The release looks integers up like categories, but for a few sizes.
- The layer that widens a pair to 512 comes after the mean over pairs, not before: the same function, as it is
  linear, for a fraction of the operations. Further mixing blocks, one being the default, are not widened in
  between.
- No shift by e⁻¹⁰: what the output is scaled by is the estimator's matter.

[1] Metz et al. 2022, VeLO (arXiv:2211.09760), App. C.4  [2] google/learned_optimization,
`time_filter/time_model.py` (Apache 2.0)  [3] Zaheer et al. 2017, Deep Sets (arXiv:1703.06114)
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.config import FrozenConfig
from lopt.types import Params
from runtime_model.features import NUMBER, ConfigFeatures

_SLOTS = 8
"""Numbers that a pair has room for in the release."""


class NetworkConfig(FrozenConfig):
    """Sizes of the deep set."""

    num_keys: int = Field(ge=1)
    num_values: int = Field(ge=1)
    pair_size: int = Field(ge=1)
    """Of embeddings and of mixing blocks."""
    set_size: int = Field(ge=1)
    """Of the layers behind the mean over pairs."""
    num_mixing_blocks: int = Field(1, ge=1)
    num_set_layers: int = Field(2, ge=1)

    def build(self) -> DeepSet:
        """Returns the Flax module."""
        return DeepSet(self)


class DeepSet(nn.Module):
    """Maps the features of one configuration to a number."""

    config: NetworkConfig

    @nn.compact
    def __call__(self, features: ConfigFeatures) -> jax.Array:
        """Applies the network.

        Shapes: fields of `features` [N, K]; the result [N]. An N of any size, K of any size.
        """
        config = self.config
        hidden, weight = self._embed(features)
        for block in range(config.num_mixing_blocks):
            hidden = MixingBlock(config.pair_size, name=f"mixing_{block}")(hidden, weight)
        out = nn.Dense(config.set_size, name="widen")(_mean(hidden, weight))
        for layer in range(config.num_set_layers):
            out = nn.relu(nn.Dense(config.set_size, name=f"set_{layer}")(out))
        return nn.Dense(1, name="out")(out)[..., 0]

    def _embed(self, features: ConfigFeatures) -> tuple[jax.Array, jax.Array]:
        """Returns the pairs' embeddings [N, K, H], and 1 for each pair that counts [N, K]."""
        config = self.config
        uniform = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -0.1, 0.1)
        truncated = nn.initializers.truncated_normal(1.0 / math.sqrt(_SLOTS))
        by_key, by_value = (config.num_keys, config.pair_size), (config.num_values, config.pair_size)
        key_table = self.param("key_table", uniform, by_key)
        value_table = self.param("value_table", uniform, by_value)
        slope_table = self.param("slope_table", truncated, by_key)
        bias_table = self.param("bias_table", nn.initializers.normal(math.sqrt(1.0 - 1.0 / _SLOTS)), by_key)
        key_ids, value_ids = jnp.asarray(features.key_ids), jnp.asarray(features.value_ids)
        number = jnp.asarray(features.numbers)[..., None] * slope_table[key_ids] + bias_table[key_ids]
        pairs = key_table[key_ids] + value_table[value_ids] + nn.relu(number)
        is_met = jnp.any(key_table != 0.0, axis=-1).astype(jnp.float32)
        return pairs, jnp.asarray(features.mask) * is_met[key_ids]


class MixingBlock(nn.Module):
    """Lets every pair hear of every other, [N, K, H] to [N, K, H]; permuting pairs permutes the result."""

    size: int

    @nn.compact
    def __call__(self, pairs: jax.Array, weight: jax.Array) -> jax.Array:
        """Applies the block; pairs whose `weight` [N, K] is 0 are not heard of."""
        hidden = nn.relu(nn.Dense(self.size, name="pair")(pairs)) * weight[..., None]
        mean = _mean(hidden, weight)[..., None, :]
        maximum = hidden.max(axis=-2, keepdims=True)  # nothing is below the zeros of what does not count
        branches = {"own": hidden, "mean": mean, "maximum": maximum}
        mixed = (nn.relu(nn.Dense(self.size, name=name)(branch)) for name, branch in branches.items())
        own, of_mean, of_maximum = mixed
        return (own + of_mean + of_maximum) / 3.0


def forget_unmet(params: Params, features: ConfigFeatures) -> Params:
    """Returns a deep set's initial `params` without what `features`, those of the training rows, never use.

    Zero become the rows of keys and categories that no pair has, and the slopes of keys that never have a number.
    """
    tables = params["params"]
    ids, mask = features.key_ids, features.mask
    is_number = jnp.where(features.value_ids == NUMBER, mask, 0.0)
    uses = {
        "key_table": (ids, mask),
        "bias_table": (ids, mask),
        "slope_table": (ids, is_number),
        "value_table": (features.value_ids, mask),
    }
    kept = {}
    for name, (rows, used) in uses.items():
        met = jnp.zeros(len(tables[name]), jnp.float32).at[rows].max(used)
        kept[name] = tables[name] * met[:, None]
    return {"params": {**tables, **kept}}


def _mean(hidden: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns [N, H]: the mean of [N, K, H] over the K pairs that count; zeros where none does."""
    count = jnp.maximum(weight.sum(axis=-1, keepdims=True), 1.0)
    return (hidden * weight[..., None]).sum(axis=-2) / count
