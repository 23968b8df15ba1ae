"""The program that a timing runs: inner training on one configuration, with a run-time trip count."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lopt.family_data import Data, separate_data
from lopt.inner_loop import InnerState, init_inner, unroll
from lopt.stand_in import stand_in
from lopt.types import Dynamic, Params, PRNGKey, TaskFamily
from runtime_model.timed_runs import Clock

LEARNING_RATE = 0.01


class StepProgram(NamedTuple):
    """A compiled training loop and what it is run on."""

    run: Callable[..., Any]
    """(dynamic, state, key, num_steps) → state."""
    dynamics: list[Dynamic]
    """One per repeat."""
    state: InnerState
    compile_seconds: float
    num_tasks: int
    temporary_bytes: int | None
    """None where the backend does not say."""
    needed_bytes: int | None
    """Of all that a run holds: arguments and results too."""

    def params(self) -> Params:
        """Returns the parameters of one task, in shape and type."""
        params = self.state.task_state.params
        return params if self.num_tasks == 1 else jax.tree.map(lambda leaf: leaf[0], params)

    def seconds(self, repeat: int, num_steps: int, clock: Clock) -> float:
        """Returns the seconds that `num_steps` steps of `repeat`'s task take, dispatch included."""
        key, steps = jax.random.key(repeat), jnp.asarray(num_steps, jnp.int32)
        jax.block_until_ready((key, steps))
        started = clock()
        jax.block_until_ready(self.run(self.dynamics[repeat], self.state, key, steps))
        return clock() - started


def compile_program(
    family: TaskFamily,
    *,
    repeats: int,
    num_tasks: int,
    clock: Clock,
) -> StepProgram:
    """Compiles inner training on `family` with SGD and draws the dynamic configuration of every repeat."""
    axes = family.dynamic_axes()
    optimizer = optax.with_extra_args_support(optax.sgd(LEARNING_RATE))
    data, with_data = separate_data(family)

    def init_one(dynamic: Dynamic, key: PRNGKey) -> InnerState:
        return init_inner(family.task(dynamic), optimizer, key)

    def train_one(
        data: Data, dynamic: Dynamic, state: InnerState, key: PRNGKey, num_steps: jax.Array
    ) -> InnerState:
        return unroll(with_data(data).task(dynamic), optimizer, state, key, start=0, stop=num_steps)

    def draw(key: PRNGKey) -> Dynamic:
        if num_tasks == 1:  # not a vmap of size one, which would compile batched kernels
            return family.sample_dynamic(key)
        return _per_task(jax.vmap(family.sample_dynamic)(jax.random.split(key, num_tasks)), axes)

    def init(dynamic: Dynamic, key: PRNGKey) -> InnerState:
        if num_tasks == 1:
            return init_one(dynamic, key)
        return jax.vmap(init_one, in_axes=(axes, 0))(dynamic, jax.random.split(key, num_tasks))

    def train(
        data: Data, dynamic: Dynamic, state: InnerState, key: PRNGKey, num_steps: jax.Array
    ) -> InnerState:
        if num_tasks == 1:
            return train_one(data, dynamic, state, key, num_steps)
        keys = jax.random.split(key, num_tasks)
        return jax.vmap(train_one, in_axes=(None, axes, 0, 0, None))(data, dynamic, state, keys, num_steps)

    started = clock()
    dynamics = _draw_all(draw, repeats)
    # Compiling the initialisers (an orthogonal one has a QR decomposition per tensor) takes longer than compiling
    # the step, and what a step takes does not depend on values.
    state = jax.tree.map(stand_in, jax.eval_shape(init, dynamics[0], jax.random.key(0)))
    program = jax.jit(train).lower(data, dynamics[0], state, jax.random.key(0), jnp.asarray(1, jnp.int32))
    run = program.compile()
    compile_seconds = clock() - started
    return StepProgram(partial(run, data), dynamics, state, compile_seconds, num_tasks, *memory(run))


def memory(compiled: Any) -> tuple[int | None, int | None]:
    """Returns the bytes of a program's temporary memory, and of all that a run of it holds.

    Results that are written over arguments count once. None where the backend does not say.
    """
    analysis = compiled.memory_analysis()
    if not hasattr(analysis, "temp_size_in_bytes"):
        return None, None
    temporary = analysis.temp_size_in_bytes
    arguments, results = analysis.argument_size_in_bytes, analysis.output_size_in_bytes
    return temporary, arguments + results + temporary - analysis.alias_size_in_bytes


def _draw_all(draw: Callable[[PRNGKey], Dynamic], count: int) -> list[Dynamic]:
    """Draws with the keys 0, 1, …, in one program: operation by operation, each would be compiled by itself."""

    @jax.jit
    def draws(seeds: jax.Array) -> list[Dynamic]:
        drawn = jax.lax.map(lambda seed: draw(jax.random.key(seed)), seeds)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], drawn) for i in range(count)]

    return draws(jnp.arange(count))


def _per_task(dynamic: Dynamic, axes: Dynamic) -> Dynamic:
    """Keeps the first value of the fields that a whole work unit shares (axis None)."""
    return jax.tree.map(
        lambda axis, field: jax.tree.map(lambda leaf: leaf[0], field) if axis is None else field,
        axes,
        dynamic,
        is_leaf=lambda axis: axis is None,
    )
