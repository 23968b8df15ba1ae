"""RMSProp (Tieleman & Hinton 2012): the rule of Wichrowska et al. 2017, 4.5."""

from __future__ import annotations

from typing import Literal

import optax
from pydantic import Field

from curriculum.update_rules.base import UpdateRuleConfig


class RmsPropConfig(UpdateRuleConfig):
    """The gradient over the root of an average of its square; the average starts at `initial_scale`."""

    rule: Literal["rmsprop"] = "rmsprop"
    decay: float = Field(0.9, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    """Added to the average, under the root."""
    initial_scale: float = Field(1.0, ge=0)
    """One, as TensorFlow's, which the paper used. From zero the first step is 1 / √(1 − decay) times too long."""

    def build(self) -> optax.GradientTransformation:
        """Returns the transformation."""
        return optax.scale_by_rms(
            self.decay, self.eps, initial_scale=self.initial_scale, eps_in_sqrt=True, bias_correction=False
        )
