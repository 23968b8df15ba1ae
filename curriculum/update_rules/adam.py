"""Adam (Kingma & Ba 2014, arXiv:1412.6980): the rule of Metz et al. 2018, 2020 and 2022."""

from __future__ import annotations

from typing import Literal

import optax
from pydantic import Field

from curriculum.update_rules.base import UpdateRuleConfig


class AdamConfig(UpdateRuleConfig):
    """Averages of gradients and their squares, corrected for their zero start."""

    rule: Literal["adam"] = "adam"
    b1: float = Field(0.9, ge=0, lt=1)
    b2: float = Field(0.99, gt=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    eps_root: float = Field(0.0, ge=0)
    """Under the root."""

    def build(self) -> optax.GradientTransformation:
        """Returns the transformation."""
        return optax.scale_by_adam(self.b1, self.b2, self.eps, self.eps_root)
