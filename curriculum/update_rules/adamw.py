"""Adam with decoupled weight decay (Loshchilov & Hutter 2017, arXiv:1711.05101): Celo2's rule."""

from __future__ import annotations

from typing import Literal

import optax
from pydantic import Field

from curriculum.update_rules.base import UpdateRuleConfig


class AdamWConfig(UpdateRuleConfig):
    """The decay is multiplied by the learning rate, as the direction is."""

    rule: Literal["adamw"] = "adamw"
    b1: float = Field(0.9, ge=0, lt=1)
    b2: float = Field(0.999, gt=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(ge=0)

    def build(self) -> optax.GradientTransformation:
        """Returns the transformation."""
        return optax.chain(
            optax.scale_by_adam(self.b1, self.b2, self.eps), optax.add_decayed_weights(self.weight_decay)
        )
