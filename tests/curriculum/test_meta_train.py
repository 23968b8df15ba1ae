"""The synchronous loop: resumed = uninterrupted, many workers = one, and what its events say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pytest

from curriculum.events import CheckpointDue, OuterStepDone, Validated
from curriculum.learner import LearnerState, aggregate, apply_meta_gradient, init_learner, record_validation
from curriculum.meta_train import meta_train
from curriculum.phase import Phase
from curriculum.units_of_work import VALIDATION, root_of
from curriculum.worker import (
    InProcessWorkerPool,
    WorkResult,
    WorkUnit,
    _program,
    init_states,
    key_from_seed,
    run_work_unit,
)
from lopt.architectures.pacer import PacerConfig
from lopt.baseline_loss import measure_baseline_loss
from lopt.config import derive
from lopt.estimators import ESTIMATORS
from lopt.estimators.truncated_es import TruncatedEsConfig
from lopt.outer_schedule import PiecewiseLinear
from task_generator.task_config import TaskConfig

CONFIG = PacerConfig()


def slow(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow)


class ShuffledPool(InProcessWorkerPool):
    """Computes the units in another order, as a cluster would."""

    def run_all(
        self,
        fn: Callable[..., Any],
        payloads: Sequence[tuple[Any, ...]],
        *,
        affinity: Sequence[str] | None = None,
        costs: Sequence[float] | None = None,
    ) -> list[Any]:
        order = list(range(len(payloads)))[::-1]
        results = {i: fn(*payloads[i]) for i in order}
        return [results[i] for i in range(len(payloads))]


def start(phase: Phase, tasks: Sequence[TaskConfig] = ()) -> LearnerState:
    theta = CONFIG.build().init_theta(jax.random.key(0))
    return init_learner(phase, theta, init_states(tasks, phase.estimator, CONFIG, theta))


def run(phase: Phase, tasks: Sequence[TaskConfig], state: LearnerState, **kwargs: Any) -> list[Any]:
    return list(meta_train(phase, tasks, CONFIG, state, kwargs.get("pool", InProcessWorkerPool()), seed=5))


def assert_identical(a: LearnerState, b: LearnerState) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(a):
        other = dict(jax.tree_util.tree_leaves_with_path(b))[path]
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(other), err_msg=jax.tree_util.keystr(path))


@pytest.fixture(scope="module")
def events(tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> list[Any]:
    return run(tiny_phase, tiny_tasks, start(tiny_phase))


def test_events_come_in_order(events: list[Any]) -> None:
    kinds = [(type(e).__name__, e.outer_step) for e in events]
    assert kinds == [
        ("Validated", 0),
        ("CheckpointDue", 0),
        ("OuterStepDone", 1),
        ("OuterStepDone", 2),
        ("Validated", 2),
        ("CheckpointDue", 2),
        ("OuterStepDone", 3),
        ("OuterStepDone", 4),
        ("Validated", 4),
        ("CheckpointDue", 4),
    ]
    steps = [e for e in events if isinstance(e, OuterStepDone)]
    assert all(np.isfinite(e.meta_loss) and e.gradient_norm > 0 for e in steps)
    assert len({e.meta_loss for e in steps}) == 4  # every outer step draws its own tasks and data


def test_resumed_run_is_the_uninterrupted_one(
    events: list[Any], tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    middle = next(e.state for e in events if isinstance(e, CheckpointDue) and e.outer_step == 2)
    as_stored = jax.tree.map(np.asarray, middle)  # what a checkpoint holds
    resumed = run(tiny_phase, tiny_tasks, as_stored)
    assert [e.outer_step for e in resumed if isinstance(e, OuterStepDone)] == [3, 4]
    assert_identical(events[-1].state, resumed[-1].state)


def test_phases_of_one_seed_have_random_numbers_of_their_own(
    tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    """A phase that drew its predecessor's directions again would follow that one's noise further."""
    seeds = []

    class Noting(InProcessWorkerPool):
        def run_all(self, fn: Any, payloads: Sequence[tuple[Any, ...]], **keywords: Any) -> list[Any]:
            seeds[-1] += [payload[0].seed for payload in payloads]
            return super().run_all(fn, payloads, **keywords)

    short = derive(tiny_phase, outer_steps=2, validate_every=2)
    for phase in (short, derive(short, name="next")):
        seeds.append([])
        run(phase, tiny_tasks, start(phase), pool=Noting())
    assert len(seeds[0]) == len(seeds[1]) == 8
    assert not set(seeds[0]) & set(seeds[1])


def test_what_is_not_finite_is_left_out_and_counted(
    tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    class Breaking(InProcessWorkerPool):
        """The first outer step's second unit is not finite, then both of the second's."""

        broken = (set(), {1}, {0, 1})

        def run_all(self, fn: Any, payloads: Sequence[tuple[Any, ...]], **keywords: Any) -> list[Any]:
            results = super().run_all(fn, payloads, **keywords)
            step = payloads[0][0].outer_step
            if payloads[0][0].sigma == 0.0 or step > 1:
                return results
            nan = jax.tree.map(lambda x: np.full_like(x, np.nan), results[0].gradient)
            bad = {"gradient": nan, "squared_norm": float("nan")}
            return [r._replace(**bad) if n in self.broken[step + 1] else r for n, r in enumerate(results)]

    done = [
        e
        for e in run(tiny_phase, tiny_tasks, start(tiny_phase), pool=Breaking())
        if isinstance(e, OuterStepDone)
    ]
    assert [e.telemetry.num_not_finite for e in done] == [1, 2, 0, 0]
    assert [e.metrics["drop_rate"] for e in done] == [0.5, 1.0, 0.0, 0.0]
    assert all(np.all(np.isfinite(leaf)) for e in done for leaf in jax.tree.leaves(e.state.theta))
    unmoved = zip(jax.tree.leaves(done[0].state.theta), jax.tree.leaves(done[1].state.theta), strict=True)
    assert all(np.array_equal(a, b) for a, b in unmoved)
    assert [e.outer_step for e in done] == [1, 2, 3, 4]


def test_order_of_completion_does_not_matter(
    events: list[Any], tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    assert_identical(
        events[-1].state, run(tiny_phase, tiny_tasks, start(tiny_phase), pool=ShuffledPool())[-1].state
    )


def test_seeds_and_losses_change_no_bit(
    events: list[Any], tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...], is_optimized: bool
) -> None:
    """The learner draws the workers' perturbations again, in the tasks' order, whoever was first."""
    phase = derive(tiny_phase, transport="seeds_and_losses")
    last = run(phase, tiny_tasks, start(phase), pool=ShuffledPool())[-1].state
    if is_optimized:
        assert_identical(events[-1].state, last)
    for leaf, other in zip(jax.tree.leaves(events[-1].state), jax.tree.leaves(last), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-6)


WINDOWED = {"sigma": 0.03, "unroll_length": 2, "num_pairs": 4, "stagger": False}


@pytest.mark.parametrize(
    "name", ["persistent_es", *(slow(n) for n in ("truncated_es", "unrolled_backprop", "combined"))]
)
def test_trajectories_go_on_through_outer_steps_and_resumes(
    name: str, tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    """Windows of 2 in horizons of 5: the third step ends a trajectory. Order and resuming change no bit."""
    fields = {key: value for key, value in WINDOWED.items() if key in ESTIMATORS[name].model_fields}
    fields |= {
        "min_horizon": 5,
        "max_horizon": 5,
        "num_tasks": 2,
        "num_final_batches": 1,
        "aggregate": "mean",
    }
    phase = derive(tiny_phase, estimator={"estimator": name, **fields})
    events = run(phase, tiny_tasks, start(phase, tiny_tasks))
    steps = [e for e in events if isinstance(e, OuterStepDone)]
    assert [e.metrics["window"] for e in steps] == [2.0, 2.0, 1.0, 2.0]
    shuffled = run(phase, tiny_tasks, start(phase, tiny_tasks), pool=ShuffledPool())
    assert_identical(events[-1].state, shuffled[-1].state)
    middle = next(e.state for e in events if isinstance(e, CheckpointDue) and e.outer_step == 2)
    resumed = run(phase, tiny_tasks, jax.tree.map(np.asarray, middle))
    assert_identical(events[-1].state, resumed[-1].state)


def growing(phase: Phase, name: str, fields: dict[str, Any]) -> Phase:
    fields = {key: value for key, value in fields.items() if key in ESTIMATORS[name].model_fields}
    lengths = {
        "min_horizon": 5,
        "max_horizon": 5,
        "num_tasks": 2,
        "num_final_batches": 1,
        "aggregate": "mean",
    }
    return derive(phase, estimator={"estimator": name, **lengths, **fields})


def programs_compiled(phase: Phase, task: TaskConfig) -> int:
    program = _program(task.canonical_json(), phase.estimator.canonical_json(), CONFIG.canonical_json())
    return int(program.estimate.func._cache_size())


@pytest.mark.parametrize(
    ("name", "fields", "metric", "expected"),
    [
        ("full_es", {"horizon_limit": PiecewiseLinear.linear(2, 5, num_steps=3)}, "horizon", [2, 3, 4, 5]),
        pytest.param(
            "persistent_es",
            {"unroll_length": 3, "unroll_limit": PiecewiseLinear.linear(1, 3, num_steps=2), "stagger": False},
            "window",
            [1, 2, 2, 3],  # 5 = 1 + 2 + 2, then a new trajectory
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_schedule_goes_on_where_a_run_was_interrupted(
    name: str,
    fields: dict[str, Any],
    metric: str,
    expected: list[float],
    tiny_phase: Phase,
    tiny_tasks: tuple[TaskConfig, ...],
) -> None:
    """Lengths follow the outer step with one program per task; order and resuming in the middle change no bit."""
    phase = growing(tiny_phase, name, {"sigma": 0.03, "num_pairs": 1, **fields})
    events = run(phase, tiny_tasks, start(phase, tiny_tasks))
    steps = [e for e in events if isinstance(e, OuterStepDone)]
    assert [e.metrics[metric] for e in steps] == expected
    assert [programs_compiled(phase, task) for task in tiny_tasks] == [1, 1]
    shuffled = run(phase, tiny_tasks, start(phase, tiny_tasks), pool=ShuffledPool())
    assert_identical(events[-1].state, shuffled[-1].state)
    middle = next(e.state for e in events if isinstance(e, CheckpointDue) and e.outer_step == 2)
    resumed = run(phase, tiny_tasks, jax.tree.map(np.asarray, middle))
    assert [e.metrics[metric] for e in resumed if isinstance(e, OuterStepDone)] == expected[2:]
    assert_identical(events[-1].state, resumed[-1].state)
    assert [programs_compiled(phase, task) for task in tiny_tasks] == [1, 1]


def test_finished_phase_has_nothing_left_to_do(
    events: list[Any], tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    assert run(tiny_phase, tiny_tasks, events[-1].state) == []


def test_validation_is_repeatable_and_measures_the_average(
    events: list[Any], tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    first, *_, last = [e for e in events if isinstance(e, Validated)]
    again = run(tiny_phase, tiny_tasks, start(tiny_phase))[0]
    assert first.per_task == again.per_task
    unit = WorkUnit(
        tiny_tasks[1].canonical_json(),
        tiny_phase.estimator.canonical_json(),
        CONFIG.canonical_json(),
        (*root_of(tiny_phase, 5), VALIDATION, 1),
        0.0,
    )
    alone = run_work_unit(unit, jax.tree.map(np.asarray, last.state.theta_average))
    assert alone.meta_loss == last.per_task[1]


def test_losses_are_relative_to_what_a_baseline_reaches_on_the_task(
    tiny_tasks: tuple[TaskConfig, ...],
) -> None:
    """Which the worker measures; the same unit with that number in its configuration gives the same bits."""
    fields = {
        "aggregate": "mean",
        "split": "outer_valid",
        "num_step_batches": 2,
        "meta_loss_scale": "baseline",
    }
    windows = {"unroll_length": 2, "sigma": 0.03, "num_tasks": 1, "num_pairs": 1}
    config = TruncatedEsConfig.model_validate({"min_horizon": 6, "max_horizon": 6, **windows, **fields})
    family = tiny_tasks[0].build()
    loss = measure_baseline_loss(family, horizon=6, split="outer_valid", cap=config.loss_cap)
    assert 0.0 < loss < 1.5
    theta = CONFIG.build().init_theta(jax.random.key(0))
    (state,) = init_states(tiny_tasks[:1], config, CONFIG, theta)

    def result(estimator: TruncatedEsConfig) -> WorkResult:
        how, what = estimator.canonical_json(), CONFIG.canonical_json()
        unit = WorkUnit(tiny_tasks[0].canonical_json(), how, what, (1, 2), None)
        return run_work_unit(unit, jax.tree.map(np.asarray, theta), state)

    measured, told, other = (
        result(one)
        for one in (config, derive(config, baseline_loss=loss), derive(config, baseline_loss=loss / 2))
    )
    assert measured.meta_loss == told.meta_loss != other.meta_loss
    for ours, theirs in zip(jax.tree.leaves(measured.gradient), jax.tree.leaves(told.gradient), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_wrong_number_of_tasks_is_refused(tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]) -> None:
    with pytest.raises(ValueError, match="holds num_static_configs=2 tasks, got 1"):
        run(tiny_phase, tiny_tasks[:1], start(tiny_phase))


def test_aggregate_is_the_mean_in_a_fixed_order() -> None:
    gradients = [{"a": np.float32([1e8, 1.0])}, {"a": np.float32([1.0, 2.0])}, {"a": np.float32([-1e8, 3.0])}]
    np.testing.assert_allclose(aggregate(gradients)["a"], [1 / 3, 2.0], rtol=1e-6)
    with pytest.raises(ValueError, match="at least one"):
        aggregate([])


def test_average_starts_at_theta_and_best_keeps_the_lowest(tiny_phase: Phase) -> None:
    state = start(tiny_phase)
    gradient = jax.tree.map(np.ones_like, jax.tree.map(np.asarray, state.theta))
    one = apply_meta_gradient(tiny_phase, state, gradient)
    np.testing.assert_array_equal(one.theta["skip"], one.theta_average["skip"])
    assert float(one.theta["skip"][0]) < 1.0  # moved against the gradient
    two = apply_meta_gradient(tiny_phase, one, gradient)
    np.testing.assert_allclose(
        two.theta_average["skip"], (one.theta["skip"] + two.theta["skip"]) / 2, rtol=1e-6
    )
    kept = record_validation(record_validation(one, 0.5), 0.7)
    assert float(kept.best_validation) == 0.5
    assert float(record_validation(kept, float("nan")).best_validation) == 0.5


def test_seed_order_matters() -> None:
    keys = [jax.random.key_data(key_from_seed(seed)).tolist() for seed in ((1, 2), (2, 1), (1, 2, 0))]
    assert len({tuple(k) for k in keys}) == 3
