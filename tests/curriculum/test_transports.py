"""Transports: however gradients travel, the learner has the same sum; what cannot travel so is refused."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pydantic import ValidationError

from curriculum.asynchronous.errands import Answer, Errand, merge, run_errand
from curriculum.asynchronous.simulated_stream import SimulatedStream
from curriculum.events import OuterStepDone
from curriculum.learner import init_learner
from curriculum.meta_train_asynchronously import meta_train_asynchronously
from curriculum.phase import Phase
from curriculum.transports import LARGE, TRANSPORTS, choose, num_bytes
from curriculum.units_of_work import transport_of
from curriculum.worker import WorkResult, WorkUnit, run_work_unit
from lopt.architectures.pacer import PacerConfig
from lopt.config import derive
from lopt.estimators import ESTIMATORS
from lopt.estimators.evolution import TasksConfig
from lopt.perturbations import PERTURBATIONS
from lopt.types import MetaGradient
from task_generator.task_config import TaskConfig
from tests.support.learned_rate import QuadraticFamily

CONFIG = PacerConfig()
WINDOWED = {"unroll_length": 2, "stagger": False}
COMBINING = [name for name in ESTIMATORS if name in ("full_es", "truncated_es")]


class LearnedMatrix:
    """SGD whose rate is a number plus the mean of a matrix that low-rank perturbations have factors of."""

    reads_loss = False

    def init_theta(self, key: jax.Array) -> Any:
        return {"rate": jnp.float32(0.1), "matrix": 0.1 * jax.random.normal(key, (7, 6))}

    def transform(self, theta: Any, *, num_steps: Any) -> optax.GradientTransformationExtraArgs:
        rate = theta["rate"] + jnp.mean(jnp.sin(theta["matrix"]))
        return optax.with_extra_args_support(
            optax.stateless(lambda grads, params: jax.tree.map(lambda g: -rate * g, grads))
        )


def estimator_config(name: str, **changes: Any) -> TasksConfig:
    fields = {
        "sigma": 0.03,
        "num_pairs": 4,
        "num_tasks": 3,
        "min_horizon": 4,
        "max_horizon": 6,
        "num_final_batches": 1,
        **WINDOWED,
        **changes,
    }
    known = ESTIMATORS[name].model_fields
    return ESTIMATORS[name].model_validate({key: value for key, value in fields.items() if key in known})


def estimates(config: TasksConfig, count: int = 2) -> tuple[Any, list[MetaGradient]]:
    """Returns theta and the gradients of consecutive windows."""
    estimator = config.build(QuadraticFamily(spread=1.0), LearnedMatrix())
    theta = LearnedMatrix().init_theta(jax.random.key(0))
    state, estimate, results = estimator.init(theta, jax.random.key(1)), jax.jit(estimator.estimate), []
    for number in range(count):
        result, state = estimate(theta, state, jax.random.key(number + 2))
        results.append(result)
    return jax.tree.map(np.asarray, theta), results


def assert_same(found: Any, expected: Any, *, exactly: bool) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if exactly:
            np.testing.assert_array_equal(leaf, other, strict=True)
        else:
            np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("perturbation", sorted(PERTURBATIONS))
@pytest.mark.parametrize(("name", "normalization"), [("full_es", "unit_norm"), ("truncated_es", "rank")])
def test_seeds_and_losses_give_the_gradient_that_the_worker_had(
    name: str, normalization: str, perturbation: str
) -> None:
    """To float32's rounding: the worker's program and the learner's may add in different orders."""
    config = estimator_config(
        name, perturbation={"perturbation": perturbation}, task_normalization=normalization
    )
    assert config.gives_combination
    theta, results = estimates(config)
    transport = TRANSPORTS["seeds_and_losses"]
    packed = pickle.loads(pickle.dumps([transport.pack(result) for result in results]))
    for one, result in zip(packed, results, strict=True):
        found, size = transport.unpack(one, config, theta), np.abs(result.mean["matrix"]).max()
        assert size > 1e-4
        for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(result.mean), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6 * size, strict=True)
    both = transport.unpack(transport.add(packed), config, theta)
    expected = jax.tree.map(lambda a, b: np.asarray(a) + b, *(result.mean for result in results))
    for leaf, other in zip(jax.tree.leaves(both), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=2e-6 * size)


def test_seeds_and_losses_cost_the_same_bytes_whatever_the_size_of_theta() -> None:
    _, results = estimates(estimator_config("full_es"), count=1)
    combination = results[0].combination
    sizes = []
    for number in (10, 100_000):
        result = results[0]._replace(mean={"a": np.zeros(number, np.float32)})
        assert combination is result.combination
        sizes.append({name: num_bytes(one.pack(result)) for name, one in TRANSPORTS.items()})
    assert sizes[0]["seeds_and_losses"] == sizes[1]["seeds_and_losses"] == 8 + 4 * 3 * 4 * 2
    assert sizes[1]["dense"] == sizes[1]["partial_sums"] == 400_000


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in COMBINING])
def test_gradients_that_are_no_combination_are_refused(name: str, tiny_phase: Phase) -> None:
    config = estimator_config(name)
    assert not config.gives_combination
    message = rf"'seeds_and_losses' needs .*\(full_es, truncated_es\), got '{name}'. Use 'dense', or leave it"
    with pytest.raises(ValidationError, match=message):
        derive(tiny_phase, estimator=config.model_dump(), transport="seeds_and_losses")
    assert choose("auto", config, "synchronous", 10).name == "dense"


def test_packing_what_is_no_combination_is_an_error() -> None:
    result = MetaGradient({"a": np.ones(3, np.float32)}, jnp.float32(1), jnp.float32(1), {})
    with pytest.raises(ValueError, match="not made of perturbations"):
        TRANSPORTS["seeds_and_losses"].pack(result)


def test_what_a_phase_may_name(tiny_phase: Phase) -> None:
    with pytest.raises(ValidationError, match="'partial_sums' is for `mode: asynchronous`"):
        derive(tiny_phase, transport="partial_sums")
    with pytest.raises(KeyError, match=r"unknown transport 'dens'.* Did you mean 'dense'"):
        derive(tiny_phase, transport="dens")
    derive(tiny_phase, transport="partial_sums", mode="asynchronous")


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        ("synchronous", 100, "dense"),
        ("synchronous", LARGE, "dense"),
        ("asynchronous", LARGE - 1, "dense"),
        ("asynchronous", LARGE, "partial_sums"),
    ],
)
def test_auto_goes_by_the_size_of_theta(mode: str, size: int, expected: str, tiny_phase: Phase) -> None:
    theta = {"a": np.zeros(size - 1, np.float32), "b": np.float32(0)}
    assert transport_of(derive(tiny_phase, mode=mode), theta).name == expected


def test_auto_draws_again_what_is_fast_to_draw() -> None:
    low_rank = {"perturbation": "low_rank", "rank": 2}
    for name, pairs, size, expected in (
        ("full_es", 2, LARGE, "seeds_and_losses"),
        ("truncated_es", 2, LARGE, "seeds_and_losses"),
        ("full_es", 2, LARGE - 1, "dense"),
        ("full_es", 3, LARGE, "dense"),  # 18 factors
        ("persistent_es", 2, LARGE, "dense"),
    ):
        config = estimator_config(name, num_pairs=pairs, perturbation=low_rank)
        assert choose("auto", config, "synchronous", size).name == expected


@pytest.mark.parametrize("name", sorted(TRANSPORTS))
def test_sums_are_of_everything_in_whatever_order_they_are_merged(name: str) -> None:
    """A tree of answers gives what one answer would; parts keep their order, and what was lost is named."""
    config = estimator_config("full_es")
    theta, results = estimates(config, count=4)
    transport = TRANSPORTS[name]
    answers = [
        Answer(7, name, transport.pack(result), ((index, float(result.meta_loss)),))
        for index, result in enumerate(results)
    ]
    at_once = merge(answers)
    in_a_tree = merge([merge(answers[:2]), merge(answers[2:])])
    assert at_once.parts == in_a_tree.parts
    expected = jax.tree.map(lambda *leaves: np.sum(np.float64(leaves), axis=0), *(r.mean for r in results))
    for one in (at_once, in_a_tree):
        found = transport.unpack(one.packed, config, theta)
        for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"only answers at one theta .* outer steps \[7, 8\]"):
        merge([answers[0], answers[1]._replace(outer_step=8)])


THETA = {"a": np.zeros(LARGE, np.float32), "b": np.zeros((), np.float32)}


def phase_of(phase: Phase, **changes: Any) -> Phase:
    large = {"mode": "asynchronous", "outer_steps": 6, "validate_every": 6, "checkpoint_every": 6}
    return derive(phase, **{**large, **changes})


def steps(phase: Phase, tasks: Sequence[TaskConfig], stream: Any) -> list[OuterStepDone]:
    events = meta_train_asynchronously(
        phase, tasks, CONFIG, init_learner(phase, THETA), stream, seed=5, clock=lambda: stream.now
    )
    return [event for event in events if isinstance(event, OuterStepDone)]


class CountingStream(SimulatedStream):
    """Remembers what was sent."""

    def start(self, worker: str, fn: Any, payload: tuple[Any, ...], *, tag: int) -> None:
        self.errands = [*getattr(self, "errands", []), payload[0]]
        super().start(worker, fn, payload, tag=tag)


def test_partial_sums_are_a_workers_share_of_the_batch(
    tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    for batch_size, expected in ((4, 2), (3, 1), (64, 8)):
        phase = phase_of(tiny_phase, batch_size=batch_size, max_staleness=100)
        stream = CountingStream(2)
        found = steps(phase, tiny_tasks, stream)
        sent = [one for one in stream.errands if isinstance(one, Errand)]
        assert {len(one.units) for one in sent} == {expected}
        assert len({unit.seed for one in sent for unit in one.units}) == expected * len(sent)
        assert {unit.transport for one in sent for unit in one.units} == {"partial_sums"}
        assert all(step.num_inner_steps >= 10 * batch_size for step in found)
        assert found[-1].metrics["task_share_spread"] <= 3 + 2 * 2 * expected


def test_the_mean_of_partial_sums_is_that_of_the_gradients(
    tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    """Every number of a unit's gradient is its loss, so the mean gradient is the mean loss, unit for unit."""
    second = tiny_tasks[1].canonical_json()

    def result(unit: WorkUnit, theta: Any) -> WorkResult:
        loss = 3.0 if unit.task == second else 1.0
        gradient = jax.tree.map(lambda leaf: np.full_like(leaf, loss), theta)
        return WorkResult(gradient, loss, 10.0, {}, squared_norm=1.0)

    phase = phase_of(tiny_phase, batch_size=8, max_staleness=100)
    for step in steps(phase, tiny_tasks, SimulatedStream(2, result=result)):
        np.testing.assert_allclose(step.gradient_norm, step.meta_loss * np.sqrt(LARGE + 1), rtol=1e-6)
        assert 1.5 < step.meta_loss < 2.5


def test_a_unit_that_fails_among_others_is_named_and_the_others_count(
    tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...]
) -> None:
    second = tiny_tasks[1].canonical_json()
    counter = iter(range(10_000))
    fails = lambda unit, worker: "no" if unit.task == second and next(counter) % 2 else ""
    phase = phase_of(tiny_phase, batch_size=8, max_staleness=100)
    last = steps(phase, tiny_tasks, SimulatedStream(2, fails=fails))[-1].metrics
    assert last["failed_units"] > 3
    assert last["task_share_spread"] <= 3 + 2 * 2 * 4


@pytest.fixture(scope="module")
def theta() -> Any:
    return jax.tree.map(np.asarray, CONFIG.build().init_theta(jax.random.key(0)))


def test_an_errand_of_real_units(
    tiny_phase: Phase, tiny_tasks: tuple[TaskConfig, ...], theta: Any, is_optimized: bool
) -> None:
    """Seeds and losses are the worker's own bits here, partial sums the sum, and a measurement has no gradient."""
    how, architecture = tiny_phase.estimator.canonical_json(), CONFIG.canonical_json()
    dense = [
        WorkUnit(tiny_tasks[0].canonical_json(), how, architecture, (1, number), None) for number in range(2)
    ]
    results = [run_work_unit(unit, theta) for unit in dense]
    for name, transport in TRANSPORTS.items():
        units = [unit._replace(transport=name) for unit in dense]
        broken = units[0]._replace(task="{}")
        answer = run_errand(Errand((*units, broken), (4, 5, 6), 7), theta)
        assert answer.outer_step == 7
        assert [part.task for part in answer.parts] == [4, 5, 6]
        assert [part.is_in_sum for part in answer.parts] == [True, True, False]
        assert "ValidationError" in answer.parts[2].failure
        assert [part.result.meta_loss for part in answer.parts[:2]] == [r.meta_loss for r in results]
        found = transport.unpack(answer.packed, tiny_phase.estimator, theta)
        expected = TRANSPORTS["dense"].add([result.gradient for result in results])
        assert_same(found, expected, exactly=is_optimized)
    assert run_work_unit(dense[0]._replace(sigma=0.0), theta).gradient == ()
