"""What a worker does: one unit of work, a pure function of what it is sent.

A unit carries its configurations as JSON and its randomness as integers, so any worker, on any machine with the
same hardware and libraries, computes the same bits. Compiled programs are kept per static configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from lopt.architectures import ARCHITECTURES
from lopt.estimators import ESTIMATORS
from lopt.family_data import Data, separate_data
from lopt.registry import lookup
from lopt.types import LearnedOptimizer, MetaGradient, Theta
from task_generator.task_config import TaskConfig

MAX_COMPILED_PROGRAMS = 8
"""Programs that a worker keeps: as many static configurations as VeLO's workers held (E.3)."""

Result = TypeVar("Result")


class WorkerPool(Protocol):
    """Whoever runs units of work: this process, or a cluster."""

    def run_all(
        self,
        fn: Callable[..., Result],
        payloads: Sequence[tuple[Any, ...]],
        *,
        affinity: Sequence[str] | None = None,
        costs: Sequence[float] | None = None,
    ) -> list[Result]:
        """Returns `fn(*payload)` for every payload, in order.

        Units with the same affinity prefer the same worker, which then has their program compiled. What costs
        most (in any unit) starts first, and workers get about equal costs.
        """
        ...

    def imap_unordered(
        self,
        fn: Callable[..., Result],
        payloads: Sequence[tuple[Any, ...]],
        *,
        affinity: Sequence[str] | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Yields `(index, fn(*payload))` as results come in."""
        ...


class InProcessWorkerPool:
    """Runs every unit here, one after the other: for tests, debugging and machines without a cluster."""

    def run_all(
        self,
        fn: Callable[..., Result],
        payloads: Sequence[tuple[Any, ...]],
        *,
        affinity: Sequence[str] | None = None,
        costs: Sequence[float] | None = None,
    ) -> list[Result]:
        """Returns the results in order."""
        del affinity, costs
        return [fn(*payload) for payload in payloads]

    def imap_unordered(
        self,
        fn: Callable[..., Result],
        payloads: Sequence[tuple[Any, ...]],
        *,
        affinity: Sequence[str] | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Yields the results in order."""
        del affinity
        for index, payload in enumerate(payloads):
            yield index, fn(*payload)


class WorkUnit(NamedTuple):
    """One meta-gradient to estimate; small enough to send with every outer step."""

    task: str  # TaskConfig as JSON
    estimator: str  # estimator configuration as JSON
    optimizer: str  # architecture configuration as JSON
    seed: tuple[int, ...]  # folded into the key one after the other
    sigma: float  # 0: measure theta itself, with the same program


class WorkResult(NamedTuple):
    """What comes back, as NumPy so that the receiver needs no JAX."""

    gradient: Theta
    meta_loss: float
    num_inner_steps: float
    metrics: dict[str, float]


def build_optimizer(optimizer_json: str) -> LearnedOptimizer:
    """Returns the learned optimizer that an architecture configuration in JSON describes.

    Raises:
      UnknownNameError: If the architecture is not registered.
    """
    data = json.loads(optimizer_json)
    config_type = lookup(ARCHITECTURES, data.get("architecture", ""), kind="architecture")
    return config_type.model_validate(data).build()


def key_from_seed(seed: tuple[int, ...]) -> jax.Array:
    """Returns a PRNG key that depends on every integer of `seed` and their order."""
    key = jax.random.key(seed[0])
    for number in seed[1:]:
        key = jax.random.fold_in(key, number)
    return key


@lru_cache(maxsize=MAX_COMPILED_PROGRAMS)
def _program(
    task_json: str, estimator_json: str, optimizer_json: str
) -> Callable[[Theta, jax.Array, jax.Array], MetaGradient]:
    family = TaskConfig.model_validate_json(task_json).build()
    estimator_data = json.loads(estimator_json)
    config_type = lookup(ESTIMATORS, estimator_data["estimator"], kind="estimator")
    config, learned = config_type.model_validate(estimator_data), build_optimizer(optimizer_json)

    data, with_data = separate_data(family)

    def measure(data: Data, theta: Theta, key: jax.Array, sigma: jax.Array) -> MetaGradient:
        return config.build(with_data(data), learned).measure(theta, key, sigma)

    return partial(jax.jit(measure), data)


def run_work_unit(unit: WorkUnit, theta: Theta) -> WorkResult:
    """Returns the meta-gradient of one unit at `theta` (a tree of NumPy arrays)."""
    program = _program(unit.task, unit.estimator, unit.optimizer)
    result = program(jax.tree.map(jnp.asarray, theta), key_from_seed(unit.seed), jnp.float32(unit.sigma))
    result = jax.device_get(result)
    return WorkResult(
        gradient=jax.tree.map(np.asarray, result.mean),
        meta_loss=float(result.meta_loss),
        num_inner_steps=float(result.num_inner_steps),
        metrics={name: float(value) for name, value in result.metrics.items()},
    )
