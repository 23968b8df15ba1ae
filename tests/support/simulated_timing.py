"""A task that compiles in no time, clocks that only work advances, and programs that they time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import pytest

import runtime_model.timed_runs
from lopt.config import FrozenConfig
from lopt.types import Task, TaskState
from runtime_model.step_program import StepProgram
from runtime_model.timed_runs import Clocks
from runtime_model.timing import TimingSettings, _measure
from task_generator.task_config import TaskConfig

QUICK = TimingSettings(repeats=2, runs=1, target_seconds=0.002, update="none")


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

    def approximate_cost(self) -> dict[str, float]:
        """Returns next to nothing."""
        return {"num_params": 3.0, "flops_per_step": 18.0}

    def build(self) -> Bowl:
        """Returns the family."""
        return Bowl(self.fails)


def bowl(*, fails: bool = False) -> TaskConfig:
    """Returns a configuration that compiles in no time; its loss raises if it `fails`."""
    return cast(TaskConfig, BowlConfig(fails=fails))


class StepClock:
    """Advances by a fixed amount whenever it is read."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


class Simulated:
    """A machine whose clock only its work advances, and a program on it; every speed change is known.

    Args:
      slowness: How many times longer work takes, by the second it is done in.
    """

    def __init__(self, slowness: Callable[[float], float] = lambda _: 1.0) -> None:
        self.now, self.slowness, self.num_runs = 0.0, slowness, 0
        self.num_tasks, self.per_step, self.dispatch = 2, 3e-5, 4e-4
        self.delay: dict[int, float] = {}  # run number → what else it takes

    def clock(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds * self.slowness(self.now)

    def seconds(self, repeat: int, steps: int, clock: Callable[[], float]) -> float:
        """Stands in for `StepProgram.seconds`: repeat r takes 1 + r / 10 times as long."""
        started = clock()
        self.work(self.dispatch + self.delay.get(self.num_runs, 0.0))
        self.work(steps * self.num_tasks * self.per_step * (1 + repeat / 10))
        self.num_runs += 1
        return clock() - started

    def install_probe(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def probe(clock: Callable[[], float]) -> float:
            started = clock()
            self.work(1e-3)
            return clock() - started

        monkeypatch.setattr(runtime_model.timed_runs, "probe_seconds", probe)

    def measure(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, Any]:
        self.install_probe(monkeypatch)
        record: dict[str, Any] = {}
        settings = TimingSettings(**{"repeats": 3, "target_seconds": 0.01, **changes})
        _measure(cast(StepProgram, self), record, settings, Clocks(self.clock, self.clock, self.clock))
        return record
