"""A timing records what it saw, and everything that goes wrong is a record too."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import pytest

from lopt.config import FrozenConfig
from lopt.types import Task, TaskState
from runtime_model.timing import StepTiming, time_step
from task_generator.datasets.prepared import DatasetNotPreparedError, use_reader
from task_generator.task_config import TaskConfig, parse_task_config


class Dynamic(NamedTuple):
    """One field of each kind of axis."""

    offset: jax.Array
    shared: jax.Array


class Bowl:
    """A quadratic whose loss fails if its configuration says so."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def sample_dynamic(self, key: jax.Array) -> Dynamic:
        """Draws both fields."""
        return Dynamic(jax.random.normal(key, (3,)), jnp.asarray(2.0, jnp.float32))

    def dynamic_axes(self) -> Dynamic:
        """One per task, and one per work unit."""
        return Dynamic(cast(Any, 0), cast(Any, None))

    def task(self, dynamic: Dynamic) -> Task:
        """Returns a task whose state carries a key, as a stochastic model's may."""
        fails = self.fails

        class BowlTask:
            def init(self, key: jax.Array) -> TaskState:
                return TaskState(jnp.ones(3), {"key": key, "count": jnp.asarray(0, jnp.int32)})

            def batch(self, key: jax.Array, split: str = "train") -> jax.Array:
                return jax.random.normal(key, (3,))

            def loss(self, state: TaskState, key: jax.Array, batch: jax.Array) -> tuple[jax.Array, TaskState]:
                if fails:
                    raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand a long trace")
                distance = dynamic.shared * (state.params - dynamic.offset - batch)
                return (distance**2).sum(), state

            def normalize(self, loss: jax.Array) -> jax.Array:
                return loss

        return cast(Task, BowlTask())


class Inner(FrozenConfig):
    """Stands in for a family's configuration."""

    family: Literal["bowl"] = "bowl"


class BowlConfig(FrozenConfig):
    """Stands in for a task configuration."""

    family: Inner = Inner()
    fails: bool = False

    def build(self) -> Bowl:
        """Returns the family."""
        return Bowl(self.fails)


def _bowl(*, fails: bool = False) -> TaskConfig:
    return cast(TaskConfig, BowlConfig(fails=fails))


class StepClock:
    """Advances by a fixed amount whenever it is read."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def test_a_real_configuration_is_timed() -> None:
    family = {"family": "mlp", "hidden_size": 8, "num_layers": 1, "image_size": 4, "batch_size": 4}
    config = parse_task_config({"family": {**family, "dataset": "digits", "activation": "relu"}})
    timing = time_step(config, target_seconds=0.005)
    assert timing.valid
    assert timing.seconds_per_step is not None
    assert 1e-7 < timing.seconds_per_step < 0.05
    assert timing.family == "mlp"
    assert timing.config_fingerprint == config.fingerprint()
    assert parse_task_config(timing.config_json) == config
    assert timing.hardware.startswith("cpu:")
    assert StepTiming.model_validate(json.loads(timing.canonical_json())) == timing


def test_seconds_are_per_step_and_task() -> None:
    """Every measurement lasts one tick of 0.8 s; 4 steps of 2 tasks are 0.1 s each."""
    timing = time_step(
        _bowl(), num_steps=4, num_tasks=2, repeats=3, max_seconds_per_step=1.0, clock=StepClock(0.8)
    )
    assert timing.valid
    assert timing.seconds_per_step == pytest.approx(0.1)
    assert timing.relative_spread == pytest.approx(0.0)
    assert (timing.num_steps, timing.num_tasks) == (4, 2)
    assert timing.compile_seconds == pytest.approx(0.8)


class NothingPrepared:
    """A reader without data sets."""

    def read_images(self, name: str, image_size: int) -> None:
        return None

    def read_tokens(self, name: str) -> None:
        return None

    def count(self, name: str) -> None:
        return None

    def cached(self, name: str, key: str, make: Any) -> Any:
        return make()


def test_a_failing_loss_is_recorded_invalid_with_the_first_line_of_the_reason() -> None:
    timing = time_step(_bowl(fails=True))
    assert not timing.valid
    assert timing.reason == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    assert timing.seconds_per_step is None
    assert timing.family == "bowl"


def test_a_slow_configuration_is_refused_and_its_seconds_are_kept() -> None:
    timing = time_step(_bowl(), max_seconds_per_step=0.5, clock=StepClock(3.0))
    assert not timing.valid
    assert timing.reason == "too slow: 3 s per step, more than 0.5 s"
    assert timing.seconds_per_step == pytest.approx(3.0)


def test_a_program_that_needs_too_much_memory_is_refused_before_it_runs() -> None:
    timing = time_step(_bowl(), max_bytes=-1)
    assert not timing.valid
    assert timing.reason.startswith("too large: needs ")
    assert timing.seconds_per_step is None


def test_absent_data_are_no_measurement() -> None:
    family = {"family": "mlp", "hidden_size": 8, "num_layers": 1, "image_size": 4, "batch_size": 4}
    config = parse_task_config({"family": {**family, "dataset": "cifar10"}})
    with use_reader(NothingPrepared()), pytest.raises(DatasetNotPreparedError, match="keirin data prepare"):
        time_step(config)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="repeats=0"):
        time_step(_bowl(), repeats=0)
