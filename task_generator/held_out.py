"""What a phase may never train on, declared, so that an evaluation on it means something.

    HeldOut(families=("vit",), datasets=("photo_patches",), evaluation_sets=("heldout_demo",))

Families and data sets are meant by name, shapes by the values of a configuration's fields, and single tasks by an
evaluation set that they are in: a task is held out if any of these covers it. Families within another count too: an
optimizer that is trained on digits has seen digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

from pydantic import model_validator

from lopt.config import FrozenConfig
from lopt.registry import lookup
from task_generator.datasets.images import DATASETS
from task_generator.datasets.text import TEXTS
from task_generator.evaluation_set import EVALUATION_SETS
from task_generator.families import FAMILIES, FamilyConfig
from task_generator.open_choices import could_become
from task_generator.task_config import TaskConfig

FieldValue = int | float | str | bool


class HeldOut(FrozenConfig):
    """A declaration of held-out tasks; empty: nothing is held out."""

    families: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    shapes: tuple[tuple[str, FieldValue], ...] = ()
    """Fields of a family's configuration with the value that is held out: ("image_size", 16). A draw that leaves
    such a field open (an activation, drawn when the program runs) is held out, too."""
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
        """Returns why a task may not be trained on, in a few words; None if it may.

        Nor may a draw that leaves open what is held out, because it may turn out to be that.
        """
        return self.reason_by_kind(config) or self._reason_by_choice(config)

    def reason_by_kind(self, config: TaskConfig) -> str | None:
        """Returns why a task's family, data set or shape is held out, those within it included."""
        for family in _with_inner(config.family):
            within = "" if family is config.family else f" within {config.family.family}"
            if family.family in self.families:
                return f"family {family.family}{within}"
            dataset = getattr(family, "dataset", None)
            if dataset in self.datasets:
                return f"data set {dataset}{within}"
            for name, value in self.shapes:
                if getattr(family, name, None) == value:
                    return f"{name} {value}{within}"
        return None

    def _reason_by_choice(self, config: TaskConfig) -> str | None:
        for family in _with_inner(config.family):
            for name, value in self.shapes:
                if getattr(family, name, value) is None:
                    return f"{name} is left open, {value} is held out"
        for name in self.evaluation_sets:
            if any(could_become(config, task.config) for task in EVALUATION_SETS[name]):
                return f"a task of {name}"
        return None

    def fingerprints(self) -> tuple[str, ...]:
        """Returns those of the evaluation sets' tasks as the sets are now, sorted."""
        tasks = (task.config for name in self.evaluation_sets for task in EVALUATION_SETS[name])
        return tuple(sorted({config.fingerprint() for config in tasks}))

    def allowed(self, configs: Sequence[TaskConfig]) -> tuple[TaskConfig, ...]:
        """Returns the tasks that may be trained on."""
        return tuple(config for config in configs if self.reason(config) is None)


def _with_inner(family: FamilyConfig) -> Iterator[FamilyConfig]:
    """Yields a family's configuration and all within it: the task of a trained optimizer, the parts of a sum."""
    yield family
    for _, value in family:
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, FamilyConfig):
                yield from _with_inner(each)
