"""One phase on other hardware: by the stated rules, whole, and without touching the original."""

from __future__ import annotations

import numpy as np
import pytest

from curriculum.phase import Phase
from curriculum.phases import PHASES, get_phase
from curriculum.scaling import scaled, with_outer_steps
from curriculum.update_rules import SgdConfig
from lopt.config import derive


def test_batch_and_configurations_follow_the_workers_and_the_rate_their_root() -> None:
    phase = get_phase("velo_small_tasks")
    quarter = scaled(phase, num_workers=1024, suffix="_quarter")
    assert (quarter.batch_size, quarter.num_static_configs, quarter.num_workers) == (4096, 8192, 1024)
    assert quarter.theta_optimizer.learning_rate == pytest.approx(1.5e-4)
    assert quarter.name == "velo_small_tasks_quarter"
    assert quarter.start_from is None
    unchanged = ("outer_steps", "max_staleness", "distribution", "estimator", "problem_size", "mode")
    assert all(getattr(quarter, name) == getattr(phase, name) for name in unchanged)
    again = scaled(quarter, num_workers=4096, suffix="")
    assert derive(again, name=phase.name) == phase


def test_gradient_descent_is_scaled_linearly() -> None:
    phase = get_phase("velo_small_tasks")
    phase = derive(phase, theta_optimizer=derive(phase.theta_optimizer, update_rule=SgdConfig()))
    assert scaled(phase, num_workers=1024, suffix="_a").theta_optimizer.learning_rate == pytest.approx(7.5e-5)


def test_keeping_the_tasks_makes_more_outer_steps() -> None:
    phase = get_phase("velo_larger_tasks")
    few = scaled(phase, num_workers=64, suffix="_few", keep="tasks")
    assert few.start_from == "velo_small_tasks_few"
    assert few.batch_size == 80
    assert few.outer_steps * few.batch_size == phase.outer_steps * (phase.batch_size or 0)


def test_one_worker_still_holds_eight_configurations_and_has_a_batch() -> None:
    one = scaled(get_phase("velo_small_tasks"), num_workers=1, suffix="_one")
    assert (one.batch_size, one.num_static_configs) == (4, 8)
    demo = scaled(get_phase("short_horizon"), num_workers=1, suffix="_one")
    assert (demo.batch_size, demo.num_static_configs) == (None, 6)
    assert demo.theta_optimizer == get_phase("short_horizon").theta_optimizer


def test_slower_hardware_gets_more_seconds() -> None:
    phase = get_phase("velo_small_tasks")
    slow = scaled(phase, num_workers=4096, suffix="_slow", slowdown=10.0)
    np.testing.assert_allclose(slow.problem_size.seconds, np.multiply(phase.problem_size.seconds, 10))
    assert slow.unit_timeout == 10 * phase.unit_timeout


def test_a_shorter_phase_goes_through_its_whole_schedule() -> None:
    phase = get_phase("metz2020_growing")
    short = with_outer_steps(phase, 120)
    limit = short.estimator.unroll_limit
    assert limit.points == ((3, 300.0), (103, 10_000.0))
    assert short.theta_optimizer.statistics_warm_up == 30
    np.testing.assert_allclose(
        limit.values(120), phase.estimator.unroll_limit.values(12_000)[::100], rtol=1e-12
    )
    assert with_outer_steps(short, 12_000).estimator.unroll_limit == phase.estimator.unroll_limit


@pytest.mark.parametrize("name", sorted(PHASES))
@pytest.mark.parametrize("outer_steps", [1, 2, 7, 1000])
def test_every_phase_can_be_made_any_length(name: str, outer_steps: int) -> None:
    phase = with_outer_steps(PHASES[name], outer_steps)
    assert phase.outer_steps == outer_steps
    assert Phase.model_validate_json(phase.model_dump_json()) == phase


def test_impossible_scales_are_refused() -> None:
    phase = get_phase("short_horizon")
    with pytest.raises(ValueError, match="`num_workers` and `slowdown` must be positive, got 0 and 1"):
        scaled(phase, num_workers=0, suffix="_no")
    with pytest.raises(ValueError, match="`num_workers` and `slowdown` must be positive, got 1 and 0"):
        scaled(phase, num_workers=1, suffix="_no", slowdown=0.0)
    with pytest.raises(ValueError, match="`outer_steps` must be at least 1, got 0"):
        with_outer_steps(phase, 0)
