"""What an update rule is: an optax transformation of gradients into directions, before any learning rate."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import optax

from lopt.config import FrozenConfig


class UpdateRuleConfig(FrozenConfig):
    """Base of the rules."""

    rate_exponent: ClassVar[float] = 0.5
    """Of the ratio of batches, which the learning rate is multiplied by when a phase is scaled: ½ where directions
    are divided by the gradient's size, 1 where they are not."""

    @abstractmethod
    def build(self) -> optax.GradientTransformation:
        """Returns the transformation; its result times minus the learning rate is added to theta."""
