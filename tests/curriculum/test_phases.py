"""Phases as data: they validate whole, and choose their tasks as they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from curriculum.phase import Phase
from curriculum.phase_tasks import sample_phase_tasks
from curriculum.phases import CURRICULA, PHASES, get_phase
from curriculum.schedules import learning_rate_schedule
from lopt.config import derive
from runtime_model.prediction import Prediction
from runtime_model.rejection import BudgetUnreachableError
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
        ({"outer_steps": 5}, "`warm_up` must be shorter than the phase"),
        ({"outer_steps": 0}, "greater than or equal to 1"),
    ],
)
def test_an_impossible_phase_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, KeyError), match=message):
        derive(get_phase("short_horizon"), **changes)


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
