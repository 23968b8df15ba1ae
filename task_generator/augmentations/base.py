"""What a task augmentation's configuration can do."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from lopt.config import FrozenConfig
from lopt.types import TaskFamily
from task_generator.distributions import Distribution
from task_generator.families.base import FamilyConfig


class AugmentationConfig(FrozenConfig):
    """The static configuration of a transformation of task families."""

    augmentation: str

    probability: ClassVar[float]
    """How often sampling applies the augmentation, unless `sample` says otherwise."""

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the distribution of each field, given that the augmentation is applied."""
        return {}

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Self | None:
        """Draws from the augmentation's prior. None: this task goes without."""
        if rng.uniform() >= cls.probability:
            return None
        return cls.model_validate({field: prior.sample(rng) for field, prior in cls.prior().items()})

    def could_sample(self) -> bool:
        """Returns whether the prior could draw this configuration."""
        return all(prior.contains(getattr(self, field)) for field, prior in self.prior().items())

    def includes_identity(self) -> bool:
        """Returns whether the task as it is is among those that this may make of it."""
        return False

    def refuses(self, family: FamilyConfig) -> str | None:
        """Returns why this augmentation makes no sense on `family`, a sentence, or None where it does."""
        del family
        return None

    def cost(self, cost: dict[str, float]) -> dict[str, float]:
        """Returns what `approximate_cost` becomes: the same, but for more, fewer or smaller evaluations."""
        return cost

    def apply(self, family: TaskFamily) -> TaskFamily:
        """Returns the transformed family."""
        raise NotImplementedError

    def label(self) -> str:
        """Returns a few words for a table."""
        raise NotImplementedError
