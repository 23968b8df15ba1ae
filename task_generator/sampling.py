"""Sampling static task configurations: a mixture of families, their priors, and augmentations.

A distribution is data. Where it has time budgets, one is drawn first and decides which families are offered, as in
VeLO's C.5: a budget too short for a language model to fit would only be spent on rejecting them.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self, get_args

import numpy as np
from pydantic import Field, ValidationError, model_validator

from lopt.config import FrozenConfig, derive
from lopt.registry import lookup
from task_generator.augmentations import AUGMENTATIONS
from task_generator.datasets.images import DATASETS
from task_generator.datasets.text import TEXTS
from task_generator.distributions import Categorical, Distribution, Value, check_weights
from task_generator.families import FAMILIES
from task_generator.families.base import ConfigPrior, FamilyConfig
from task_generator.open_choices import beyond, could_become
from task_generator.task_config import AnyAugmentation, TaskConfig

MAX_REDRAWS = 256

Mixture = tuple[tuple[str, float], ...]
"""Family names and weights, which sum to 1."""


class TimeBudget(FrozenConfig):
    """A largest time per inner step, and what is drawn when it is."""

    seconds: float = Field(gt=0, description="Seconds per inner step.")
    probability: float = Field(gt=0, le=1)
    families: Mixture = Field(min_length=1, description="Family names and weights.")


class TaskDistribution(FrozenConfig):
    """A distribution over task configurations, as data."""

    name: str
    tasks: tuple[TaskConfig, ...] = Field(
        (),
        exclude_if=lambda tasks: not tasks,  # fingerprints of distributions without are what they were
        description="Whole configurations, equally likely, instead of families and all that follows.",
    )
    families: Mixture = Field((), description="Family names and weights; left out where there are budgets.")
    budgets: tuple[TimeBudget, ...] = Field((), description="Time budgets, each with its own mixture.")
    datasets: tuple[str, ...] = Field(
        (), description="Images and texts; of its kind, a family draws uniformly."
    )
    augmentations: tuple[str, ...] = Field((), description="Augmentations, each drawn from its prior.")
    priors: str = Field(
        "", description="Which of a family's priors; where it has none of the name, its usual one."
    )
    fixed: tuple[tuple[str, Value], ...] = Field(
        (), description="Fields that are not drawn, and their values."
    )
    always: tuple[AnyAugmentation, ...] = Field(
        (), description="Augmentations that every task has, applied first."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(map(bool, (self.tasks, self.families, self.budgets))) != 1:
            raise ValueError(
                "give either `tasks` or `families` or `budgets`, which have families of their own"
            )
        if self.tasks:
            others = set(type(self).model_fields) - {"name", "tasks"}
            if unread := sorted(name for name in others if getattr(self, name)):
                raise ValueError(f"`tasks` are whole configurations: {', '.join(unread)} would not be read")
        if self.budgets:
            check_weights(tuple(b.probability for b in self.budgets), count=len(self.budgets))
        for mixture in self.mixtures():
            check_weights(tuple(weight for _, weight in mixture), count=len(mixture))
        names = [name for mixture in self.mixtures() for name, _ in mixture]
        known: tuple[tuple[Any, list[str], str], ...] = (
            (FAMILIES, names, "task family"),
            (AUGMENTATIONS, list(self.augmentations), "augmentation"),
            ({**DATASETS, **TEXTS}, list(self.datasets), "dataset"),
        )
        for registry, given, kind in known:
            for name in given:
                lookup(registry, name, kind=kind)
        for name in dict.fromkeys(names):
            self.prior(name)  # says what is missing now, not when it is first drawn
        return self

    def mixtures(self) -> tuple[Mixture, ...]:
        """Returns every mixture of families that can be drawn from."""
        if self.tasks:
            return ()
        return tuple(budget.families for budget in self.budgets) or (self.families,)

    def family_names(self) -> frozenset[str]:
        """Returns the families that a draw can be of; those within another, as parts of a sum, do not count."""
        mixed = {name for mixture in self.mixtures() for name, weight in mixture if weight > 0}
        return frozenset(mixed | {task.family.family for task in self.tasks})

    def mixture(self, seconds: float) -> Mixture:
        """Returns the families offered under a budget: those of the largest one within it, or of the smallest."""
        if not self.budgets:
            return self.families
        by_time = sorted(self.budgets, key=lambda budget: budget.seconds)
        within = [budget for budget in by_time if budget.seconds <= seconds]
        return (within[-1] if within else by_time[0]).families

    def draw_mixture(self, rng: np.random.Generator) -> Mixture:
        """Returns the families offered under a budget that is drawn."""
        if not self.budgets:
            return self.families
        return self.budgets[
            int(rng.choice(len(self.budgets), p=[b.probability for b in self.budgets]))
        ].families

    def prior(self, family: str) -> dict[str, Distribution]:
        """Returns the priors of one family's fields, with data sets and fixed fields as the distribution has them.

        Raises:
          ValueError: If none of the distribution's data sets is one that the family learns from.
        """
        if family not in self._priors:
            config_type = lookup(FAMILIES, family, kind="task family")
            usual = config_type.named_priors().get(self.priors) or config_type.prior()
            drawn = {name: self._restricted(config_type, name, prior) for name, prior in usual.items()}
            fields = config_type.model_fields
            fixed = {name: Categorical(values=(value,)) for name, value in self.fixed if name in fields}
            self._priors[family] = {**drawn, **fixed}
        return self._priors[family]

    @functools.cached_property
    def _priors(self) -> dict[str, dict[str, Distribution]]:
        """Made once per family: a draw asks for them, and ten thousand draws are a matter of seconds."""
        return {}

    def _restricted(self, config_type: type[FamilyConfig], field: str, prior: Distribution) -> Distribution:
        if isinstance(prior, ConfigPrior):
            inner = tuple((name, self._restricted(prior.config_type, name, p)) for name, p in prior.priors)
            return dataclasses.replace(prior, priors=inner)
        if field != "dataset":
            return prior
        known = get_args(config_type.model_fields["dataset"].annotation)
        allowed = tuple(name for name in self.datasets if name in known)
        if not allowed:
            raise ValueError(
                f"`datasets` of distribution {self.name!r} must name one that {config_type.__name__} learns from, "
                f"got {self.datasets}. Add one of {', '.join(known)}."
            )
        return Categorical(values=allowed)

    def could_sample(self, config: TaskConfig) -> bool:
        """Returns whether a task like `config` lies in the support of this distribution.

        An override of a dynamic choice counts as sampled if the dynamic prior could have drawn its value; so does a
        task without an augmentation that all draws have, if that could have left it as it is.
        """
        if self.tasks:
            return any(could_become(task, config) for task in self.tasks)
        family = config.family.family
        if not any(name == family and weight > 0 for mixture in self.mixtures() for name, weight in mixture):
            return False
        drawn = beyond(self.always, config.augmentations)
        if drawn is None:
            return False
        names = [augmentation.augmentation for augmentation in drawn]
        if names != [name for name in self.augmentations if name in names]:
            return False  # unknown, repeated or reordered
        return (
            all(prior.contains(getattr(config.family, field)) for field, prior in self.prior(family).items())
            and self._without_own_fields(config.family).overrides_could_be_sampled()
            and all(augmentation.could_sample() for augmentation in drawn)
        )

    def _without_own_fields(self, family: FamilyConfig) -> FamilyConfig:
        """Returns the configuration with those fields at their defaults that the family's usual prior doesn't draw.

        The distribution draws or fixes them; what the family makes of such values is not the question then.
        """
        fields, usual = type(family).model_fields, type(family).prior()
        own = [
            name for name in self.prior(family.family) if name not in usual and not fields[name].is_required()
        ]
        return derive(family, **{name: fields[name].default for name in own})


def sample_task_config(
    distribution: TaskDistribution, rng: np.random.Generator, *, seconds: float | None = None
) -> TaskConfig:
    """Draws one configuration: a family, its fields, then each augmentation that goes with it.

    Draws that do not validate are redrawn, so that every configuration returned can be built; whether it fits
    a time budget is not asked here.

    Args:
      distribution: What to draw from.
      rng: The source of every draw.
      seconds: The time budget that decides which families are offered; None draws one, too.

    Raises:
      RuntimeError: If nothing valid came in `MAX_REDRAWS` draws: the priors contradict the fields' checks.
    """
    if distribution.tasks:
        return distribution.tasks[int(rng.integers(len(distribution.tasks)))]
    mixture = distribution.draw_mixture(rng) if seconds is None else distribution.mixture(seconds)
    names, weights = zip(*mixture, strict=True)
    error: ValidationError | None = None
    for _ in range(MAX_REDRAWS):
        name = str(Categorical(values=names, weights=weights).sample(rng))
        fields = {field: prior.sample(rng) for field, prior in distribution.prior(name).items()}
        drawn = [AUGMENTATIONS[augmentation].sample(rng) for augmentation in distribution.augmentations]
        try:
            family = FAMILIES[name].model_validate(fields)
        except ValidationError as invalid:
            error = invalid
            continue
        fitting = tuple(a for a in drawn if a is not None and a.refuses(family) is None)
        return TaskConfig(family=family, augmentations=(*distribution.always, *fitting))
    raise RuntimeError(
        f"{MAX_REDRAWS} draws from distribution {distribution.name!r} gave no valid task; the last: {error}. "
        "Narrow the priors or widen the checks of the family's fields."
    )


def sample_task_configs(distribution: TaskDistribution, seed: int, count: int) -> list[TaskConfig]:
    """Returns `count` configurations. The i-th depends on (seed, i) only: a longer list extends a shorter."""
    rngs = (np.random.default_rng(np.random.SeedSequence([seed, i])) for i in range(count))
    return [sample_task_config(distribution, rng) for rng in rngs]
