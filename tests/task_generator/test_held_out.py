"""What may not be drawn: tasks in what a draw may turn out to be, and families within families."""

from __future__ import annotations

from typing import Any

import pytest

from lopt.config import derive
from task_generator import DISTRIBUTIONS, sample_task_configs
from task_generator.augmentations import ReparametrizeConfig
from task_generator.evaluation_set import EVALUATION_SETS
from task_generator.families import FAMILIES
from task_generator.held_out import HeldOut
from task_generator.open_choices import could_become
from task_generator.sampling import TaskDistribution
from task_generator.task_config import TaskConfig

TASK = EVALUATION_SETS["indistribution_demo"][0].config
"""A network of 2 × 32 units on digits, its activation, initialiser and scale fixed."""
SET = HeldOut(evaluation_sets=("indistribution_demo",))
OPEN = {"activation": None, "initializer": None, "init_scale": None}


def changed(*augmentations: ReparametrizeConfig, **fields: Any) -> TaskConfig:
    family = derive(TASK.family, **fields)
    return TaskConfig(family=family, augmentations=augmentations)


def scales(low: float, high: float) -> ReparametrizeConfig:
    return ReparametrizeConfig(level="global", low=low, high=high)


@pytest.mark.parametrize(
    ("draw", "refused"),
    [
        (TASK, True),
        (changed(**OPEN), True),
        (changed(activation=None), True),
        (changed(scales(0.1, 10.0), **OPEN), True),
        (changed(scales(2.0, 10.0), **OPEN), False),  # never 1: always another task
        (changed(**{**OPEN, "activation": "tanh"}), False),
        (changed(**OPEN, hidden_size=33), False),
        (changed(**OPEN, dataset="photo_patches"), False),
    ],
)
def test_a_draw_that_may_turn_out_to_be_a_held_out_task_is_refused(draw: TaskConfig, refused: bool) -> None:
    assert SET.reason(draw) == ("a task of indistribution_demo" if refused else None)
    assert HeldOut(evaluation_sets=("heldout_demo",)).reason(draw) is None


def test_what_is_drawn_leaves_open_what_evaluation_tasks_fix() -> None:
    """So none is ever equal to one, and of a distribution of nothing but the task's shape none may be drawn."""
    sizes = ("hidden_size", "num_layers", "image_size", "batch_size")
    fixed = tuple((name, getattr(TASK.family, name)) for name in sizes)
    shape = TaskDistribution(name="x", families=(("mlp", 1.0),), datasets=("digits",), fixed=fixed)
    draws = sample_task_configs(shape, seed=0, count=5)
    assert TASK not in draws
    assert shape.could_sample(TASK)
    assert all(SET.reason(draw) for draw in draws)


@pytest.mark.parametrize(
    ("family", "held_out", "reason"),
    [
        ("lopt_training", {"families": ("mlp",)}, "family mlp within lopt_training"),
        ("lopt_training", {"datasets": ("digits",)}, "data set digits within lopt_training"),
        ("lopt_training", {"shapes": (("image_size", 8),)}, "image_size 8 within lopt_training"),
        ("lopt_training", {"families": ("conv",)}, None),
        ("sum_of_problems", {"families": ("quadratic",)}, "family quadratic within sum_of_problems"),
        ("sum_of_problems", {"families": ("sum_of_problems",)}, "family sum_of_problems"),
        ("sum_of_problems", {"families": ("logistic_regression",)}, None),
    ],
)
def test_families_within_families_count(family: str, held_out: dict[str, tuple], reason: str | None) -> None:
    assert HeldOut(**held_out).reason(TaskConfig(family=FAMILIES[family].example())) == reason


def test_no_sum_with_a_held_out_part_is_left_of_many_draws() -> None:
    held_out = HeldOut(families=("quadratic",))
    draws = sample_task_configs(DISTRIBUTIONS["wichrowska"], seed=0, count=300)
    allowed = [config.family for config in held_out.allowed(draws)]
    assert 0 < len(allowed) < len(draws)
    sums = [family for family in allowed if family.family == "sum_of_problems"]
    assert not any(part.family == "quadratic" for family in sums for part in family.parts)


def test_a_shape_that_is_drawn_at_run_time_is_left_to_no_draw() -> None:
    held_out = HeldOut(shapes=(("activation", "relu"),))
    assert held_out.reason(changed()) == "activation relu"
    assert held_out.reason(changed(**OPEN)) == "activation is left open, relu is held out"
    assert held_out.reason(changed(activation="tanh")) is None


@pytest.mark.parametrize(
    ("fields", "augmentations", "inside"),
    [
        ({}, ("always",), True),
        ({}, (), True),  # the scale may come out as 1
        ({"hidden_size": 33}, (), False),
        ({}, (scales(0.1, 10.0),), False),
        ({}, ("always", scales(0.1, 10.0)), False),
    ],
)
def test_a_re_scaling_of_every_task_includes_none(
    fields: dict[str, Any], augmentations: tuple[Any, ...], inside: bool
) -> None:
    celo2 = DISTRIBUTIONS["celo2_embedded"]
    drawn = sample_task_configs(celo2, seed=0, count=1)[0]
    applied = tuple(a for each in augmentations for a in (celo2.always if each == "always" else (each,)))
    config = TaskConfig(family=derive(drawn.family, **fields), augmentations=applied)
    assert celo2.could_sample(config) is inside
    never_one = derive(celo2, always=(scales(2.0, 10.0),))
    assert not never_one.could_sample(config)


def test_whole_tasks_that_leave_something_open_include_what_they_may_become() -> None:
    four = DISTRIBUTIONS["four_small"]
    fixed = derive(four.tasks[0], family=derive(four.tasks[0].family, init_scale=1.0))
    assert fixed not in four.tasks
    assert could_become(four.tasks[0], fixed)
    assert not could_become(fixed, four.tasks[0])
    assert four.could_sample(fixed)
