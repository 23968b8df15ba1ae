"""What training sees of a task, and where a program's data come from."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.family_data import separate_data
from lopt.inner_loop import init_inner, inner_step
from lopt.lanes import ChoicesPerTask, init_lanes, sample_dynamics
from lopt.training_gradient import value_and_grad
from lopt.types import TaskState


class Dynamic(NamedTuple):
    choice: jax.Array
    scale: jax.Array


@dataclasses.dataclass(frozen=True)
class Bowl:
    """½·scale·|p|² with three parameters; `choice` doubles it."""

    dynamic: Dynamic

    def init(self, key: jax.Array) -> TaskState:
        return TaskState({"p": jax.random.normal(key, (3,))})

    def batch(self, key: jax.Array, split: str = "train") -> Any:
        return key

    def loss(self, state: TaskState, key: jax.Array, batch: Any) -> tuple[jax.Array, TaskState]:
        factor = jnp.where(self.dynamic.choice > 0, 2.0, 1.0) * self.dynamic.scale
        return factor * jnp.sum(state.params["p"] ** 2) / 2, state

    def normalize(self, loss: jax.Array) -> jax.Array:
        return loss


class Reversed(Bowl):
    """Shows training the gradient's opposite."""

    def value_and_grad(self, state: TaskState, key: jax.Array, batch: Any) -> Any:
        loss, after = self.loss(state, key, batch)
        return (loss, after), jax.tree.map(jnp.negative, state.params)


@dataclasses.dataclass(frozen=True)
class BowlFamily:
    data: jax.Array

    def sample_dynamic(self, key: jax.Array) -> Dynamic:
        return Dynamic(jax.random.bernoulli(key).astype(jnp.int32), 1.0 + jax.random.uniform(key))

    def dynamic_axes(self) -> Dynamic:
        return Dynamic(None, 0)  # type: ignore[arg-type]

    def task(self, dynamic: Dynamic) -> Bowl:
        return Bowl(dynamic)


jax.tree_util.register_dataclass(BowlFamily, data_fields=["data"], meta_fields=[])
ONE = Dynamic(jnp.int32(0), jnp.float32(1.0))


def test_a_task_without_a_gradient_of_its_own_shows_that_of_its_loss() -> None:
    task, key = Bowl(ONE), jax.random.key(0)
    state = task.init(key)
    (loss, after), grads = value_and_grad(task, state, key, task.batch(key))
    np.testing.assert_allclose(loss, np.sum(np.square(state.params["p"])) / 2, rtol=1e-6)
    np.testing.assert_allclose(grads["p"], state.params["p"], rtol=1e-6)
    assert after is not None


def test_the_inner_loop_trains_on_the_gradient_that_the_task_shows() -> None:
    sgd = optax.with_extra_args_support(optax.sgd(0.1))
    key = jax.random.key(0)
    for task, factor in ((Bowl(ONE), 0.9), (Reversed(ONE), 1.1)):
        before = init_inner(task, sgd, key)
        after, _ = inner_step(task, sgd, before, key)
        np.testing.assert_allclose(
            after.task_state.params["p"], factor * before.task_state.params["p"], rtol=1e-6
        )


def test_data_of_a_family_become_arguments_and_others_stay_as_they_are() -> None:
    family = BowlFamily(jnp.arange(4.0))
    data, with_data = separate_data(family)
    assert len(data) == 1
    doubled = jax.jit(lambda data: with_data(data).data * 2)
    np.testing.assert_array_equal(doubled(data), [0, 2, 4, 6])
    np.testing.assert_array_equal(doubled([jnp.ones(4)]), [2, 2, 2, 2])

    class Plain(BowlFamily):
        """Not registered as a pytree."""

    plain = Plain(jnp.arange(4.0))
    data, with_data = separate_data(plain)
    assert data == []
    assert with_data([]) is plain


def test_choices_per_work_unit_are_shared_and_per_task_they_differ() -> None:
    family = BowlFamily(jnp.zeros(1))
    key = jax.random.key(1)
    shared = sample_dynamics(family, key, 32)
    assert shared.choice.shape == ()
    own = sample_dynamics(ChoicesPerTask(family), key, 32)
    assert own.choice.shape == (32,)
    assert set(own.choice.tolist()) == {0, 1}
    np.testing.assert_array_equal(shared.scale, own.scale)


def test_vectorised_choices_equal_a_loop() -> None:
    family = ChoicesPerTask(BowlFamily(jnp.zeros(1)))
    dynamics = sample_dynamics(family, jax.random.key(1), 4)
    keys = jax.random.split(jax.random.key(2), 4)
    states = init_lanes(family, dynamics, keys)

    def loss(dynamic: Dynamic, state: TaskState, key: jax.Array) -> jax.Array:
        return family.task(dynamic).loss(state, key, key)[0]

    together = jax.vmap(loss, in_axes=(family.dynamic_axes(), 0, 0))(dynamics, states, keys)
    for i in range(4):
        alone = loss(*(jax.tree.map(lambda x, i=i: x[i], tree) for tree in (dynamics, states)), keys[i])
        np.testing.assert_allclose(together[i], alone, rtol=1e-6)
