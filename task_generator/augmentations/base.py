"""What a task augmentation's configuration can do."""

from __future__ import annotations

from typing import Self

import numpy as np

from lopt.config import FrozenConfig
from lopt.types import TaskFamily
from task_generator.families.base import FamilyConfig


class AugmentationConfig(FrozenConfig):
    """The static configuration of a transformation of task families."""

    augmentation: str

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Self | None:
        """Draws from the augmentation's prior. None: this task goes without."""
        raise NotImplementedError

    def could_sample(self) -> bool:
        """Returns whether the prior could draw this configuration."""
        raise NotImplementedError

    def refuses(self, family: FamilyConfig) -> str | None:
        """Returns why this augmentation makes no sense on `family`, a sentence, or None where it does."""
        del family
        return None

    def apply(self, family: TaskFamily) -> TaskFamily:
        """Returns the transformed family."""
        raise NotImplementedError

    def label(self) -> str:
        """Returns a few words for a table."""
        raise NotImplementedError
