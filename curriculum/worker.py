"""What a worker does: one unit of work, a pure function of what it is sent.

A unit carries its configurations as JSON and its randomness as integers, so any worker, on any machine with the
same hardware and libraries, computes the same bits. Compiled programs are kept per static configuration.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from curriculum.gradient_size import squared_norm
from curriculum.transports import TRANSPORTS
from curriculum.transports.base import Packed
from curriculum.unit_cost import UnitCost, timed
from curriculum.work_stream import InProcessWorkStream, WorkStream
from lopt.architectures import ARCHITECTURES
from lopt.baseline_loss import measure_baseline_loss
from lopt.config import FrozenConfig, derive
from lopt.estimators import ESTIMATORS
from lopt.estimators.evolution import TasksConfig
from lopt.estimators.full_es import FullEs
from lopt.family_data import Data, separate_data
from lopt.outer_schedule import END_OF_SCHEDULE
from lopt.registry import lookup
from lopt.types import LearnedOptimizer, MetaGradient, PyTree, Split, TaskFamily, Theta
from task_generator.task_config import TaskConfig

MAX_COMPILED_PROGRAMS = 16
"""Programs that a worker keeps. VeLO's workers held 8 (E.3), and were many: here two may share all configurations
of a phase, and a worker that goes through more than it keeps compiles every one again in every outer step. With
twenty programs of small tasks a worker takes 1.7 GB (`pacer`) or 2.9 GB (`velo` 32/8), of the 4 that it may."""

Result = TypeVar("Result")


class WorkerPool(Protocol):
    """Whoever runs units of work: this process, or a cluster."""

    @property
    def num_workers(self) -> int:
        """How many there are now."""
        ...

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
        timeout: float | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Yields `(index, fn(*payload))` as results come in.

        When none has come in for `timeout` seconds it gives up; None: after what the pool thinks long.
        """
        ...

    def stream(self) -> WorkStream:
        """Returns the same workers as a stream of units."""
        ...


class InProcessWorkerPool:
    """Runs every unit here, one after the other: for tests, debugging and machines without a cluster."""

    num_workers = 1

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
        timeout: float | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Yields the results in order."""
        del affinity, timeout
        for index, payload in enumerate(payloads):
            yield index, fn(*payload)

    def stream(self) -> WorkStream:
        """Returns a stream whose units run here."""
        return InProcessWorkStream()


class WorkUnit(NamedTuple):
    """One meta-gradient to estimate; small enough to send with every outer step."""

    task: str  # TaskConfig as JSON
    estimator: str  # estimator configuration as JSON
    optimizer: str  # architecture configuration as JSON
    seed: tuple[int, ...]  # folded into the key one after the other
    sigma: float | None  # 0: measure theta itself, with the same program (full ES); None: the estimator's own
    transport: str = "dense"  # how the gradient comes back
    outer_step: int = END_OF_SCHEDULE  # decides lengths that grow; with the same program


class WorkResult(NamedTuple):
    """What comes back, as NumPy so that the receiver needs no JAX."""

    gradient: Packed
    """As the unit's transport packs it; empty where theta itself was measured."""
    meta_loss: float
    num_inner_steps: float
    metrics: dict[str, float]
    state: PyTree = ()
    """Of the estimator, for the next window."""
    squared_norm: float = 0.0
    """Of the gradient; not finite if a number of the gradient is not."""
    cost: UnitCost = UnitCost()

    @property
    def is_finite(self) -> bool:
        """Whether it can be used: gradient and loss are finite."""
        return math.isfinite(self.meta_loss) and math.isfinite(self.squared_norm)


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


class _Program(NamedTuple):
    """One static configuration's estimator, compiled when first called."""

    estimate: Callable[..., tuple[MetaGradient, PyTree]]
    """(theta, state, key, sigma, outer step) → (meta-gradient, next state)."""
    init: Callable[[Theta], PyTree]
    """theta → the state before the first window."""
    shapes: Callable[[], PyTree]
    """Shapes and types of a state; traced once, which takes seconds."""


def _estimator(task_json: str, estimator_json: str, optimizer_json: str) -> tuple[Any, TaskFamily, Any]:
    estimator_data = json.loads(estimator_json)
    config_type = lookup(ESTIMATORS, estimator_data["estimator"], kind="estimator")
    family = TaskConfig.model_validate_json(task_json).build()
    return config_type.model_validate(estimator_data), family, build_optimizer(optimizer_json)


@lru_cache(maxsize=MAX_COMPILED_PROGRAMS)
def _program(task_json: str, estimator_json: str, optimizer_json: str) -> _Program:
    config, family, learned = _estimator(task_json, estimator_json, optimizer_json)
    if config.meta_loss_scale == "baseline" and config.baseline_loss is None:
        loss = _baseline_loss(task_json, config.max_horizon, config.split, config.loss_cap)
        config = derive(config, baseline_loss=loss)
    data, with_data = separate_data(family)

    def estimate(
        data: Data, theta: Theta, state: PyTree, key: jax.Array, sigma: jax.Array, outer_step: jax.Array
    ) -> tuple[MetaGradient, PyTree]:
        estimator = config.build(with_data(data), learned)
        if isinstance(estimator, FullEs):  # one program for training and, at σ = 0, validation
            return estimator.measure(theta, key, sigma, outer_step), state
        result: tuple[MetaGradient, PyTree] = estimator.estimate(theta, state, key, outer_step)
        return result

    def init(theta: Theta) -> PyTree:
        return config.build(family, learned).init(theta, jax.random.key(0))

    @cache
    def shapes() -> PyTree:
        return jax.eval_shape(lambda key: init(learned.init_theta(key)), jax.random.key(0))

    return _Program(partial(jax.jit(estimate), data), init, shapes)


@lru_cache(maxsize=4096)
def _baseline_loss(task_json: str, horizon: int, split: Split, cap: float) -> float:
    """Kept for longer than programs: measuring it takes a compilation and eighteen trainings."""
    family = TaskConfig.model_validate_json(task_json).build()
    return measure_baseline_loss(family, horizon=horizon, split=split, cap=cap)


def run_work_unit(unit: WorkUnit, theta: Theta, state: PyTree = ()) -> WorkResult:
    """Returns the meta-gradient of one unit at `theta`, a tree of NumPy arrays.

    Args:
      unit: What to do.
      theta: Where.
      state: Of the estimator: `init_states`'s, or the result of the unit before. Empty for full ES.
    """
    with timed() as timer:
        result, after = _estimate(unit, theta, state)
    is_measurement = unit.sigma == 0.0
    return WorkResult(
        gradient=() if is_measurement else TRANSPORTS[unit.transport].pack(result),
        meta_loss=float(result.meta_loss),
        num_inner_steps=float(result.num_inner_steps),
        metrics={name: float(value) for name, value in jax.device_get(result.metrics).items()},
        state=after,
        squared_norm=0.0 if is_measurement else squared_norm(result.mean),
        cost=timer.cost,
    )


def _estimate(unit: WorkUnit, theta: Theta, state: PyTree) -> tuple[MetaGradient, PyTree]:
    """Returns the meta-gradient, computed, and the state after it, on the host."""
    program = _program(unit.task, unit.estimator, unit.optimizer)
    theta = jax.tree.map(jnp.asarray, theta)
    sigma = unit.sigma
    if sigma is None:
        sigma = json.loads(unit.estimator).get("sigma", 0.0)
    keyed = with_keys(state, program.shapes()) if jax.tree.leaves(state) else ()
    key, outer_step = key_from_seed(unit.seed), jnp.int32(unit.outer_step)
    result, after = program.estimate(theta, keyed, key, jnp.float32(sigma), outer_step)
    return jax.block_until_ready(result), without_keys(after)


class AsyncUnit(NamedTuple):
    """A unit of an estimator whose trajectory stays on its worker."""

    unit: WorkUnit
    run: str
    """Whose trajectories they are: those of another run are not gone on with."""
    expects_state: bool
    """Whether this worker has done a window of this task before."""


_TRAJECTORIES: OrderedDict[tuple[str, ...], PyTree] = OrderedDict()
"""Of this worker, by run, task, estimator and optimizer; as many as it keeps programs."""


def run_async_unit(sent: AsyncUnit, theta: Theta) -> tuple[WorkResult, bool]:
    """Returns the next window's result, without its state, and whether a trajectory was lost and started again."""
    unit = sent.unit
    key = (sent.run, unit.task, unit.estimator, unit.optimizer)
    state = _TRAJECTORIES.pop(key, None)
    with timed() as timer:
        if state is None:
            program = _program(unit.task, unit.estimator, unit.optimizer)
            fresh = without_keys(program.init(jax.tree.map(jnp.asarray, theta)))
        result = run_work_unit(unit, theta, fresh if state is None else state)
    _TRAJECTORIES[key] = result.state
    while len(_TRAJECTORIES) > MAX_COMPILED_PROGRAMS:
        _TRAJECTORIES.popitem(last=False)
    return result._replace(state=(), cost=timer.cost), state is None and sent.expects_state


def init_states(
    tasks: Sequence[TaskConfig], estimator: TasksConfig, optimizer: FrozenConfig, theta: Theta
) -> tuple[PyTree, ...]:
    """Returns every task's estimator state before its first window, as NumPy; nothing for full ES.

    What they hold is replaced when the first window starts; what counts are shapes and types.
    """
    if estimator.is_stateless:
        return ()
    theta = jax.tree.map(jnp.asarray, theta)
    states = []
    for task in tasks:
        config, family, learned = _estimator(
            task.canonical_json(), estimator.canonical_json(), optimizer.canonical_json()
        )
        if config.meta_loss_scale == "baseline":  # only its value depends on what a baseline reaches
            config = derive(config, baseline_loss=0.0)
        states.append(without_keys(config.build(family, learned).init(theta, jax.random.key(0))))
    return tuple(states)


def without_keys(tree: PyTree) -> PyTree:
    """Returns the tree as NumPy, PRNG keys as their numbers: what can be sent and stored."""
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf), tree)


def with_keys(tree: PyTree, shapes: PyTree) -> PyTree:
    """Returns the tree as JAX arrays, keys where `shapes` has them."""
    return jax.tree.map(
        lambda shape, leaf: jax.random.wrap_key_data(leaf) if _is_key(shape) else jnp.asarray(leaf),
        shapes,
        tree,
    )


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
