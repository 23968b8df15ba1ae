"""What a drawn configuration leaves open, and whether a given task is one that it may turn out to be.

A draw leaves fields at None (an activation, an initialiser, a noise): they are drawn when the program runs. A
re-scaling may come out as 1. An evaluation task fixes them, so that it means the same for every seed, and is then
never equal to a draw: comparing the two as they are would call every such task held out.
"""

from __future__ import annotations

from typing import Any

from task_generator.augmentations import AugmentationConfig
from task_generator.families.base import FamilyConfig
from task_generator.task_config import TaskConfig

Augmentations = tuple[AugmentationConfig, ...]


def could_become(draw: TaskConfig, task: TaskConfig) -> bool:
    """Returns whether `task` is `draw` but for choices that the draw leaves open.

    Whether a fixed choice lies in the range that is drawn from is not asked, nor whether a None is drawn at
    all (a vocabulary that is kept whole isn't): so the answer is yes too often, never too rarely.
    """
    return _could_be(draw.family, task.family) and beyond(draw.augmentations, task.augmentations) == ()


def beyond(applied: Augmentations, augmentations: Augmentations) -> Augmentations | None:
    """Returns what of `augmentations` comes after those that are `applied`, in this order.

    Of these, one that may leave a task as it is may be absent; None: another one is.
    """
    rest = augmentations
    for each in applied:
        if rest[:1] == (each,):
            rest = rest[1:]
        elif not each.includes_identity():
            return None
    return rest


def _could_be(drawn: Any, fixed: Any) -> bool:
    if drawn is None or drawn == fixed:
        return True
    if isinstance(drawn, FamilyConfig):
        fields = type(drawn).model_fields
        return type(drawn) is type(fixed) and all(
            _could_be(getattr(drawn, name), getattr(fixed, name)) for name in fields
        )
    if isinstance(drawn, tuple) and isinstance(fixed, tuple):
        return len(drawn) == len(fixed) and all(map(_could_be, drawn, fixed))
    return False
