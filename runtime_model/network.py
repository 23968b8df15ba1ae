"""A deep set over key/value pairs: one number per configuration, its log seconds or the logit of its validity.

Every pair becomes `key embedding + value embedding + number · slope of the key`, goes through one small
network shared by all pairs, is pooled over the pairs (masked mean and max), and a second network reads the
pooled vector. Embeddings and slopes start at zero and get a gradient only where they are used, so whatever
the fit never met (an unseen key, a category that the schema lists but no timing had) keeps contributing
nothing.

[1] Zaheer et al. 2017, Deep Sets (arXiv:1703.06114)  [2] Metz et al. 2022 (arXiv:2211.09760), App. C.4
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from lopt.config import FrozenConfig
from runtime_model.features import NUMBER, ConfigFeatures


class NetworkConfig(FrozenConfig):
    """Sizes of the deep set."""

    num_keys: int
    num_values: int
    embedding_size: int = 16
    hidden_size: int = 64

    def build(self) -> DeepSet:
        """Returns the Flax module."""
        return DeepSet(self.num_keys, self.num_values, self.embedding_size, self.hidden_size)


class DeepSet(nn.Module):
    """Maps the features of one configuration to a number."""

    num_keys: int
    num_values: int
    embedding_size: int
    hidden_size: int

    @nn.compact
    def __call__(self, features: ConfigFeatures) -> jax.Array:
        """Applies the network.

        Shapes: fields of `features` [N, K]; the result [N]. An N of any size, K of any size.
        """
        zeros, embed = nn.initializers.zeros, self.embedding_size
        key_table = self.param("key_table", zeros, (self.num_keys, embed))
        slope_table = self.param("slope_table", zeros, (self.num_keys, embed))
        value_table = self.param("value_table", zeros, (self.num_values, embed))
        key_ids, value_ids = jnp.asarray(features.key_ids), jnp.asarray(features.value_ids)
        is_category = (value_ids != NUMBER).astype(jnp.float32)
        pairs = (
            key_table[key_ids]
            + value_table[value_ids] * is_category[..., None]
            + slope_table[key_ids] * features.numbers[..., None]
        )
        hidden = nn.relu(
            nn.Dense(self.hidden_size, bias_init=nn.initializers.normal(0.5), name="pair")(pairs)
        )
        pooled = _masked_pool(hidden, jnp.asarray(features.mask))
        out = nn.relu(nn.Dense(self.hidden_size, name="set")(pooled))
        out = nn.Dense(1, kernel_init=nn.initializers.normal(0.02), name="out")(out)
        return out[..., 0]


def _masked_pool(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns [N, 2H]: mean and maximum of [N, K, H] over the K pairs that `mask` [N, K] keeps."""
    weight = mask[..., None]
    count = jnp.maximum(weight.sum(axis=-2), 1.0)
    mean = (hidden * weight).sum(axis=-2) / count
    maximum = jnp.max(jnp.where(weight > 0.0, hidden, -jnp.inf), axis=-2)
    return jnp.concatenate([mean, jnp.where(jnp.isfinite(maximum), maximum, 0.0)], axis=-1)
