"""What a phase may never train on, declared, so that an evaluation on it means something.

    HeldOut(families=("vit",), datasets=("photo_patches",), evaluation_sets=("heldout_demo",))

Families and data sets are meant by name, shapes by the values of a configuration's fields, and single tasks by the
fingerprints of an evaluation set's: a task is held out if any of these covers it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Self

from pydantic import model_validator

from lopt.config import FrozenConfig
from lopt.registry import lookup
from task_generator.datasets.images import DATASETS
from task_generator.datasets.text import TEXTS
from task_generator.evaluation_set import EVALUATION_SETS
from task_generator.families import FAMILIES
from task_generator.task_config import TaskConfig

FieldValue = int | float | str | bool


class HeldOut(FrozenConfig):
    """A declaration of held-out tasks; empty: nothing is held out."""

    families: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    shapes: tuple[tuple[str, FieldValue], ...] = ()
    """Fields of a family's configuration with the value that is held out: ("image_size", 16)."""
    evaluation_sets: tuple[str, ...] = ()
    """Sets whose very tasks are held out, whatever else the distribution offers."""

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        fields = {name: None for family in FAMILIES.values() for name in family.model_fields}
        known: tuple[tuple[Any, tuple[str, ...], str], ...] = (
            (FAMILIES, self.families, "task family"),
            ({**DATASETS, **TEXTS}, self.datasets, "dataset"),
            (fields, tuple(name for name, _ in self.shapes), "field of a task family"),
            (EVALUATION_SETS, self.evaluation_sets, "evaluation set"),
        )
        for registry, names, kind in known:
            for name in names:
                lookup(registry, name, kind=kind)
        return self

    def reason(self, config: TaskConfig) -> str | None:
        """Returns why a task is held out, in a few words; None if it is not."""
        family = config.family
        if family.family in self.families:
            return f"family {family.family}"
        dataset = getattr(family, "dataset", None)
        if dataset in self.datasets:
            return f"data set {dataset}"
        for name, value in self.shapes:
            if getattr(family, name, None) == value:
                return f"{name} {value}"
        for name in self.evaluation_sets:
            if config.fingerprint() in _fingerprints(name):
                return f"a task of {name}"
        return None


@lru_cache(maxsize=32)
def _fingerprints(evaluation_set: str) -> frozenset[str]:
    return frozenset(task.config.fingerprint() for task in EVALUATION_SETS[evaluation_set])
