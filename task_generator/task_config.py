"""The configuration language: a task is a family's configuration and a flat tuple of augmentations.

    TaskConfig(
        family=MlpConfig(hidden_size=32, num_layers=2, image_size=8, batch_size=64, dataset="digits"),
        augmentations=(ReparametrizeConfig(level="tensor", low=0.1, high=10.0),),
    )

Both are unions over a registry, told apart by a field that names the entry: JSON reads back as the same
value, and a new entry needs no change here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError, model_validator

from lopt.config import FrozenConfig
from lopt.registry import any_of, unknown_name_message
from lopt.types import TaskFamily
from task_generator.augmentations import AUGMENTATIONS, AugmentationConfig
from task_generator.families import FAMILIES, FamilyConfig

if TYPE_CHECKING:
    AnyFamily = FamilyConfig
    AnyAugmentation = AugmentationConfig
else:
    AnyFamily = any_of(FAMILIES, "family")
    AnyAugmentation = any_of(AUGMENTATIONS, "augmentation")


class TaskConfig(FrozenConfig):
    """Everything static about a task: one value, one compiled program."""

    family: AnyFamily
    augmentations: tuple[AnyAugmentation, ...] = ()

    @model_validator(mode="after")
    def _augmentations_make_sense(self) -> Self:
        for augmentation in self.augmentations:
            reason = augmentation.refuses(self.family)
            if reason is not None:
                raise ValueError(
                    f"augmentation {augmentation.augmentation!r} does not go with {self.family.family!r}: {reason}"
                )
        return self

    def build(self) -> TaskFamily:
        """Returns the family, augmentations applied in order. Equal configurations share one object."""
        return _build(self)

    @property
    def label(self) -> str:
        """A short description: "mlp 2x32 · digits 8px · batch 64 · reparam tensor 0.1–10"."""
        parts = [self.family.label(), *(a.label() for a in self.augmentations)]
        return " · ".join(part for part in parts if part)

    def approximate_cost(self) -> dict[str, float]:
        """Returns `num_params` and `flops_per_step`: the family's, as the augmentations change them."""
        augmentations: tuple[AugmentationConfig, ...] = self.augmentations
        return functools.reduce(
            lambda cost, each: each.cost(cost), augmentations, self.family.approximate_cost()
        )


@functools.lru_cache(maxsize=64)
def _build(config: TaskConfig) -> TaskFamily:
    family = config.family.build()
    for augmentation in config.augmentations:
        family = augmentation.apply(family)
    return family


def parse_task_config(data: str | bytes | Mapping[str, Any]) -> TaskConfig:
    """Returns the configuration that JSON text, or the mapping it would read as, describes.

    Raises:
      ValueError: If the data describe none: one sentence per problem, with the path of the field. A name that
        does not exist comes with those that do, and the nearest.
    """
    try:
        if isinstance(data, str | bytes):
            return TaskConfig.model_validate_json(data)
        return TaskConfig.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_describe(problem) for problem in error.errors(include_url=False))
        raise ValueError(f"not a task configuration: {problems}") from None


def _describe(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"]) or "the whole"
    given, context = problem["input"], problem.get("ctx", {})
    if problem["type"] == "union_tag_invalid":
        field = context["discriminator"].strip("'")
        registry = FAMILIES if field == "family" else AUGMENTATIONS
        return unknown_name_message(f"task {field}", str(context["tag"]), list(registry))
    if problem["type"] == "literal_error":
        return unknown_name_message(f"`{path}`", str(given), re.findall(r"'([^']*)'", context["expected"]))
    if problem["type"] == "value_error":  # ours: it names the values itself
        return f"`{path}`: {context['error']}"
    return f"`{path}`: {problem['msg']}, got {given!r}"
