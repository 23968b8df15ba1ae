"""Gradient descent: Metz et al. 2018, Algorithm 1 (their experiments used Adam)."""

from __future__ import annotations

from typing import ClassVar, Literal

import optax

from curriculum.update_rules.base import UpdateRuleConfig


class SgdConfig(UpdateRuleConfig):
    """Has no numbers."""

    rate_exponent: ClassVar[float] = 1.0

    rule: Literal["sgd"] = "sgd"

    def build(self) -> optax.GradientTransformation:
        """Returns the identity."""
        return optax.identity()
