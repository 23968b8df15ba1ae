"""Phases as data: they validate whole, and choose their tasks as they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from curriculum.curriculum import phases_by_name
from curriculum.phase import Phase
from curriculum.phase_tasks import draw_phase_task, sample_phase_tasks
from curriculum.phases import CURRICULA, PHASES, get_phase
from curriculum.schedules import learning_rate_schedule
from lopt.config import derive
from lopt.outer_schedule import PiecewiseLinear
from lopt.registry import UnknownNameError
from runtime_model.prediction import Prediction
from runtime_model.rejection import BudgetUnreachableError
from task_generator.known_distributions import EMBEDDED, get_distribution
from task_generator.task_config import TaskConfig


def by_flops(configs: Sequence[TaskConfig]) -> Prediction:
    seconds = np.asarray([c.approximate_cost()["flops_per_step"] for c in configs]) / 1e10
    return Prediction(seconds, np.ones(len(configs)), np.zeros(len(configs)))


@pytest.mark.parametrize("name", sorted(PHASES))
def test_registered_phases_are_whole(name: str) -> None:
    phase = PHASES[name]
    assert phase.name == name
    assert Phase.model_validate_json(phase.model_dump_json()) == phase


@pytest.mark.parametrize("name", sorted(CURRICULA))
def test_a_curriculum_starts_from_what_it_has_made(name: str) -> None:
    seen: set[str] = set()
    for phase in CURRICULA[name]:
        assert phase.start_from is None or phase.start_from in seen
        seen.add(phase.name)


def test_demo_phases_grow() -> None:
    short, long = CURRICULA["demo"]
    assert long.estimator.min_horizon >= short.estimator.max_horizon
    assert min(long.problem_size.seconds) >= max(short.problem_size.seconds)


def test_unknown_phase_suggests() -> None:
    with pytest.raises(KeyError, match=r"Did you mean 'short_horizon'\?"):
        get_phase("short_horzion")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distribution": "dmeo"}, "Did you mean 'demo'"),
        ({"start_from": "short_horizon"}, "cannot start from itself"),
        ({"min_num_params": 5, "max_num_params": 4}, "`min_num_params` must not exceed"),
        ({"outer_steps": 5}, "together must be shorter than the phase, got 5 \\+ 0 and outer_steps=5"),
        (
            {"problem_size": {"seconds": (1.0, 2.0), "probabilities": (0.6, 0.5)}},
            "`probabilities` must sum to 1, got .* = 1.1. To keep their ratios, use",
        ),
        ({"outer_steps": 0}, "greater than or equal to 1"),
    ],
)
def test_an_impossible_phase_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, KeyError), match=message):
        derive(get_phase("short_horizon"), **changes)


LINE = PiecewiseLinear.linear(10, 100, num_steps=30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unroll_length": 101}, "a shortest window of 101 and a shortest horizon of 100 at outer step 0"),
        (
            {"min_unroll_length": 100, "unroll_length": 150},
            "a longest window of 150 and a longest horizon of 100 at outer step 0",
        ),
        (
            {"horizon_limit": LINE},
            "a shortest window of 20 and a shortest horizon of 10 at outer step 0. Lower `unroll_length`",
        ),
        (
            {"horizon_limit": LINE, "unroll_limit": PiecewiseLinear.linear(10, 20, num_steps=2)},
            "a shortest window of 15 and a shortest horizon of 13 at outer step 1",
        ),
        (
            {"horizon_limit": PiecewiseLinear.linear(20, 100, num_steps=60)},
            "`horizon_limit` must end within the phase, got a last point at outer step 60 and outer_steps=60",
        ),
    ],
)
def test_windows_must_fit_horizons_at_every_outer_step(changes: dict[str, Any], message: str) -> None:
    phase = get_phase("metz2020_truncated_laptop")
    whole = derive(phase.estimator, length_jitter=0.0, unroll_length=20)
    derive(phase, estimator=derive(whole, horizon_limit=PiecewiseLinear.linear(20, 100, num_steps=59)))
    estimator = derive(whole, **changes)
    with pytest.raises(ValueError, match=message):
        derive(phase, estimator=estimator)


def test_distributions_of_all_phases_have_weights_that_sum_to_one() -> None:
    for phase in PHASES.values():
        distribution = get_distribution(phase.distribution)
        for mixture in distribution.mixtures():
            assert sum(weight for _, weight in mixture) == pytest.approx(1.0)
        assert sum(phase.problem_size.probabilities) == pytest.approx(1.0)
        with pytest.raises(ValueError, match="sum to 1"):
            derive(distribution, tasks=(), families=(("mlp", 0.5), ("conv", 0.6)), budgets=())


def test_starts_must_exist_come_before_and_make_no_circle() -> None:
    first, second = CURRICULA["demo"]
    third = derive(second, name="third", start_from="long_horizon")
    assert set(phases_by_name({"a": (first, second), "b": (third,)})) == {
        "short_horizon",
        "long_horizon",
        "third",
    }
    with pytest.raises(
        UnknownNameError, match=r"'long_horizon' starts from 'short_horizn'; known.*Did you mean"
    ):
        phases_by_name({"a": (first, derive(second, start_from="short_horizn"))})
    with pytest.raises(ValueError, match="in a circle: long_horizon ← third ← long_horizon"):
        phases_by_name({"a": (first, derive(second, start_from="third"), third)})
    with pytest.raises(
        ValueError, match="has phase 'long_horizon' before 'short_horizon', which it starts from"
    ):
        phases_by_name({"a": (second, first)})
    with pytest.raises(
        ValueError, match="curriculum 'b' has another phase 'short_horizon' than one before it"
    ):
        phases_by_name({"a": (first,), "b": (derive(first, outer_steps=70),)})


def test_velo_s_batches_are_the_paper_s() -> None:
    """2 048 × 8 × 8 tasks, then 5 120 × 8, then twice that (E.4)."""
    tasks = [(phase.batch_size or 0) * phase.estimator.num_tasks for phase in CURRICULA["velo"]]
    assert tasks == [131_072, 40_960, 81_920, 81_920]


@pytest.mark.parametrize("name", [name for name in CURRICULA if name.endswith("_laptop")])
def test_laptop_curricula_are_their_papers_phase_by_phase_on_data_that_are_there(name: str) -> None:
    for phase, original in zip(CURRICULA[name], CURRICULA[name.removesuffix("_laptop")], strict=True):
        assert phase.name == f"{original.name}_laptop"
        assert phase.start_from == (original.start_from and f"{original.start_from}_laptop")
        same = ("mode", "max_staleness", "unit_timeout")
        assert all(getattr(phase, field) == getattr(original, field) for field in same)
        assert type(phase.estimator) is type(original.estimator)
        assert phase.theta_optimizer.update_rule == original.theta_optimizer.update_rule
        assert phase.theta_optimizer.clip == original.theta_optimizer.clip
        kept = ("horizon_limit", "unroll_limit", "min_unroll_length")
        for field in kept:
            assert (getattr(phase.estimator, field, None) is None) == (
                getattr(original.estimator, field, None) is None
            )
        assert set(get_distribution(phase.distribution).datasets) <= set(EMBEDDED)


def test_tasks_obey_thresholds_and_sizes_and_depend_on_the_seed() -> None:
    phase = get_phase("short_horizon")
    tasks = sample_phase_tasks(phase, by_flops, seed=3)
    assert len(tasks) == phase.num_static_configs
    costs = [task.approximate_cost() for task in tasks]
    assert max(c["flops_per_step"] / 1e10 for c in costs) <= max(phase.problem_size.seconds)
    assert all(phase.min_num_params <= c["num_params"] <= phase.max_num_params for c in costs)
    assert sample_phase_tasks(phase, by_flops, seed=3) == tasks != sample_phase_tasks(phase, by_flops, seed=4)
    fewer = derive(phase, num_static_configs=2)
    assert sample_phase_tasks(fewer, by_flops, seed=3) == tasks[:2]


def test_whole_tasks_are_taken_in_turn_and_not_asked_what_they_cost() -> None:
    def ask(_: Sequence[TaskConfig]) -> Prediction:
        raise AssertionError

    phase = get_phase("four_small_tasks")
    four = get_distribution("four_small").tasks
    assert sample_phase_tasks(phase, ask, seed=5) == four
    assert draw_phase_task(phase, ask, seed=5, index=6) == four[2]


def test_broad_phases_look_at_every_task_in_every_outer_step() -> None:
    for phase in CURRICULA["broad"]:
        assert phase.num_static_configs == len(phase.whole_tasks()) == 20
        assert "embedded24" in phase.held_out.evaluation_sets


def test_validity_alone_can_refuse_everything() -> None:
    def never_valid(configs: Sequence[TaskConfig]) -> Prediction:
        return by_flops(configs)._replace(valid_probability=np.zeros(len(configs)))

    with pytest.raises(BudgetUnreachableError, match="valid"):
        sample_phase_tasks(get_phase("short_horizon"), never_valid, seed=0)


def test_schedule_warms_up_and_falls() -> None:
    schedule = learning_rate_schedule("cosine", peak=1.0, num_steps=20, warm_up=4, final_fraction=0.1)
    values = [float(schedule(step)) for step in range(21)]
    assert values[0] == pytest.approx(0.2)
    assert max(values) == pytest.approx(1.0) == pytest.approx(values[4])
    assert values[20] == pytest.approx(0.1)
    constant = learning_rate_schedule("constant", peak=0.5, num_steps=20, warm_up=0, final_fraction=0.0)
    assert float(constant(19)) == 0.5
