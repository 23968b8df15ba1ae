"""Heavy-tailed lengths: the shortest plus an exponential variable, cut where the range ends.

    L = low + ⌊X⌋,    X ~ Exp(scale) given X < high + 1 − low

Most are short, which makes updates frequent; some are long, which an optimizer has to be good for, too.

Deviations from [1]: the tail is cut (the compiled program and its memory have a longest length; with `high` some
scales away nothing is lost), and numbers are rounded down, not to the nearest as in its release.

[1] Wichrowska et al. 2017, 4.4; the scales are the release's, the text shows a histogram (App. B.1).
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.lengths.base import Bound, LengthsConfig


class ExponentialConfig(LengthsConfig):
    """Its mean length is about `low` + `scale`."""

    lengths: Literal["exponential"] = "exponential"
    scale: float = Field(gt=0)
    """Steps."""

    def quantile(self, u: jax.Array, low: Bound, high: Bound) -> jax.Array:
        """Returns low − scale · log(1 − u · (1 − e^(−(high + 1 − low) / scale)))."""
        width = jnp.float32(high + 1) - jnp.float32(low)
        kept = -jnp.expm1(-width / self.scale)
        return jnp.float32(low) - self.scale * jnp.log1p(-u * kept)
