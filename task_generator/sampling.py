"""Sampling static task configurations: a mixture of families, their priors, and augmentations."""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from lopt.config import FrozenConfig
from lopt.registry import lookup
from task_generator.augmentations import AUGMENTATIONS
from task_generator.datasets.images import DatasetName
from task_generator.distributions import Categorical, Distribution, check_weights
from task_generator.families import FAMILIES
from task_generator.task_config import TaskConfig

MAX_REDRAWS = 256


class TaskDistribution(FrozenConfig):
    """A distribution over task configurations, as data."""

    name: str
    families: tuple[tuple[str, float], ...] = Field(min_length=1, description="Family names and weights.")
    datasets: tuple[DatasetName, ...] = Field(min_length=1, description="Data sets, drawn uniformly.")
    augmentations: tuple[str, ...] = Field((), description="Augmentations, each drawn from its prior.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_weights(tuple(weight for _, weight in self.families), count=len(self.families))
        for registry, names, kind in (
            (FAMILIES, [name for name, _ in self.families], "task family"),
            (AUGMENTATIONS, list(self.augmentations), "augmentation"),
        ):
            for name in names:
                lookup(registry, name, kind=kind)
        return self

    def prior(self, family: str) -> dict[str, Distribution]:
        """Returns the priors of one family's fields, with the data sets restricted to the distribution's."""
        priors = lookup(FAMILIES, family, kind="task family").prior()
        return {**priors, "dataset": Categorical(values=self.datasets)}

    def could_sample(self, config: TaskConfig) -> bool:
        """Returns whether a task like `config` lies in the support of this distribution.

        An override of a dynamic choice counts as sampled if the dynamic prior could have drawn its value.
        """
        weights = dict(self.families)
        if not weights.get(config.family.family, 0.0) > 0:
            return False
        names = [augmentation.augmentation for augmentation in config.augmentations]
        if names != [name for name in self.augmentations if name in names]:  # unknown, repeated or reordered
            return False
        priors = self.prior(config.family.family)
        return (
            all(prior.contains(getattr(config.family, field)) for field, prior in priors.items())
            and config.family.overrides_could_be_sampled()
            and all(augmentation.could_sample() for augmentation in config.augmentations)
        )


def sample_task_config(distribution: TaskDistribution, rng: np.random.Generator) -> TaskConfig:
    """Draws one configuration: a family, its fields, then each augmentation.

    Draws that do not validate are redrawn, so that every configuration returned can be built; whether it fits
    a time budget is not asked here.

    Raises:
      RuntimeError: If nothing valid came in `MAX_REDRAWS` draws: the priors contradict the fields' checks.
    """
    names, weights = zip(*distribution.families, strict=True)
    error: ValidationError | None = None
    for _ in range(MAX_REDRAWS):
        name = str(Categorical(values=names, weights=weights).sample(rng))
        fields = {field: prior.sample(rng) for field, prior in distribution.prior(name).items()}
        drawn = [AUGMENTATIONS[augmentation].sample(rng) for augmentation in distribution.augmentations]
        augmentations = tuple(augmentation for augmentation in drawn if augmentation is not None)
        try:
            return TaskConfig(family=FAMILIES[name].model_validate(fields), augmentations=augmentations)
        except ValidationError as invalid:
            error = invalid
    raise RuntimeError(
        f"{MAX_REDRAWS} draws from distribution {distribution.name!r} gave no valid task; the last: {error}. "
        "Narrow the priors or widen the checks of the family's fields."
    )


def sample_task_configs(distribution: TaskDistribution, seed: int, count: int) -> list[TaskConfig]:
    """Returns `count` configurations. The i-th depends on (seed, i) only: a longer list extends a shorter."""
    rngs = (np.random.default_rng(np.random.SeedSequence([seed, i])) for i in range(count))
    return [sample_task_config(distribution, rng) for rng in rngs]
