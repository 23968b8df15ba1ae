"""What a distribution over lengths is: its quantile function on a range whose ends may be traced."""

from __future__ import annotations

from abc import abstractmethod

import jax
import jax.numpy as jnp

from lopt.config import FrozenConfig
from lopt.types import PRNGKey, Scalar

Bound = int | Scalar
NUM_QUANTILES = 256


class LengthsConfig(FrozenConfig):
    """Base of the distributions over whole numbers from `low` to `high`, both included."""

    @abstractmethod
    def quantile(self, u: jax.Array, low: Bound, high: Bound) -> jax.Array:
        """Returns the length below which a share `u` ∈ [0, 1) of the draws lies, float32 before rounding down.

        The whole number k is drawn where the result is in [k, k + 1). `u` has any shape; the result has it, too.
        """

    def sample(self, key: PRNGKey, low: Bound, high: Bound) -> Scalar:
        """Returns an int32 from `low` to `high`, both included."""
        return self._whole(jax.random.uniform(key), low, high)

    def mean(self, low: Bound, high: Bound) -> Scalar:
        """Returns the mean length, from 256 quantiles."""
        middles = (jnp.arange(NUM_QUANTILES, dtype=jnp.float32) + 0.5) / NUM_QUANTILES
        return jnp.mean(self._whole(middles, low, high).astype(jnp.float32))

    def _whole(self, u: jax.Array, low: Bound, high: Bound) -> jax.Array:
        return jnp.clip(jnp.floor(self.quantile(u, low, high)).astype(jnp.int32), low, high)
