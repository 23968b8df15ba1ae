"""Optimizers that want the gradient elsewhere than at the parameters, and those that don't."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lopt import inner_loop
from lopt.gradient_location import AttendedOffset, gradient_params
from lopt.types import PRNGKey, Scalar, Split, TaskState
from lopt.use.guard_rails import skip_non_finite

RATE = 0.1
PARAMS = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray([[3.0]])}


class Bowl:
    """½·mean (x − batch)²; the batch is noise."""

    def init(self, key: PRNGKey) -> TaskState:
        return TaskState({"x": jax.random.normal(key, (3,)), "y": jnp.ones((2, 2))})

    def batch(self, key: PRNGKey, split: Split = "train") -> jax.Array:
        return jax.random.normal(key, (3,))

    def loss(self, state: TaskState, key: PRNGKey, batch: jax.Array) -> tuple[Scalar, TaskState]:
        x, y = state.params["x"], state.params["y"]
        return 0.5 * jnp.sum(jnp.square(x - batch)) + 0.5 * jnp.sum(jnp.square(y)), state

    def normalize(self, loss: Scalar) -> Scalar:
        return loss


def looking_ahead(by: float) -> optax.GradientTransformationExtraArgs:
    """Gradient descent whose gradient is taken `by` further along each coordinate, zero before the first update."""

    def init(params: Any) -> Any:
        return (AttendedOffset(jax.tree.map(jnp.zeros_like, params)), jnp.float32(0.0))

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        offset = jax.tree.map(lambda g: jnp.full_like(g, by), grads)
        return jax.tree.map(lambda g: -RATE * g, grads), (AttendedOffset(offset), state[1] + 1.0)

    return optax.GradientTransformationExtraArgs(init, update)


def after_one_update(optimizer: Any, params: Any) -> Any:
    state = optimizer.init(params)
    with jax.numpy_dtype_promotion("standard"):  # optax.MultiSteps mixes int32 and float32 itself
        return optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)[1]


@pytest.mark.parametrize(
    "optimizer", [optax.adam(0.1), optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9))]
)
def test_without_an_offset_the_parameters_themselves_come_back(optimizer: Any) -> None:
    assert gradient_params(optimizer.init(PARAMS), PARAMS) is PARAMS


def test_a_zero_offset_changes_no_bit_of_a_run() -> None:
    task, key = Bowl(), jax.random.key(3)
    runs = []
    for optimizer in (optax.with_extra_args_support(optax.sgd(RATE)), looking_ahead(0.0)):
        start = inner_loop.init_inner(task, optimizer, jax.random.key(0))
        run = jax.jit(lambda state, o=optimizer: inner_loop.unroll(task, o, state, key, start=0, stop=20))
        runs.append(run(start).task_state.params)
    for plain, offset in zip(jax.tree.leaves(runs[0]), jax.tree.leaves(runs[1]), strict=True):
        np.testing.assert_array_equal(plain, offset)


def test_the_inner_loop_takes_the_gradient_at_the_offset_and_moves_the_parameters() -> None:
    # y ← y − r·(y + c), from the second step on; y is at 1 and the first offset is zero.
    task, optimizer, ahead = Bowl(), looking_ahead(2.5), 2.5
    state = inner_loop.init_inner(task, optimizer, jax.random.key(0))
    y = 1.0
    for step in range(4):
        at = y + (ahead if step else 0.0)
        x = np.asarray(state.task_state.params["x"], np.float64) + (ahead if step else 0.0)
        noise = np.asarray(task.batch(jax.random.key(step)), np.float64)
        state, loss = inner_loop.inner_step(task, optimizer, state, jax.random.key(step))
        np.testing.assert_allclose(loss, 0.5 * np.sum((x - noise) ** 2) + 0.5 * 4 * at**2, rtol=1e-5)
        y = y - RATE * at
        np.testing.assert_allclose(state.task_state.params["y"], np.full((2, 2), y), rtol=1e-5)


WRAPPED = {
    "alone": looking_ahead(2.0),
    "chain": optax.chain(optax.clip(1e9), looking_ahead(2.0)),
    "guarded": skip_non_finite(looking_ahead(2.0)),
    "accumulated": optax.MultiSteps(looking_ahead(2.0), every_k_schedule=1),
    "deep": optax.chain(optax.clip(1e9), skip_non_finite(optax.chain(looking_ahead(2.0), optax.scale(0.5)))),
}


@pytest.mark.parametrize("name", sorted(WRAPPED))
def test_the_offset_is_found_inside_wrappers(name: str) -> None:
    state = after_one_update(WRAPPED[name], PARAMS)
    at = jax.jit(gradient_params)(state, PARAMS)
    np.testing.assert_array_equal(at["a"], PARAMS["a"] + 2.0)
    np.testing.assert_array_equal(at["b"], PARAMS["b"] + 2.0)


def test_masked_parameters_stay_where_they_are() -> None:
    masked = optax.masked(looking_ahead(2.0), {"a": True, "b": False})
    at = gradient_params(after_one_update(masked, PARAMS), PARAMS)
    np.testing.assert_array_equal(at["a"], PARAMS["a"] + 2.0)
    assert at["b"] is PARAMS["b"]
    nested = {"a": jnp.ones(2), "rest": {"b": jnp.ones(1), "c": jnp.ones(3)}}
    state = after_one_update(optax.masked(looking_ahead(2.0), {"a": True, "rest": False}), nested)
    assert gradient_params(state, nested)["rest"]["c"] is nested["rest"]["c"]


def test_partitioned_optimizers_each_place_their_own() -> None:
    split = optax.multi_transform(
        {"near": looking_ahead(1.0), "far": looking_ahead(5.0), "none": optax.sgd(0.1)},
        {"a": "near", "b": "far", "c": "none"},
    )
    params = {**PARAMS, "c": jnp.ones(2)}
    at = gradient_params(after_one_update(split, params), params)
    np.testing.assert_array_equal(at["a"], PARAMS["a"] + 1.0)
    np.testing.assert_array_equal(at["b"], PARAMS["b"] + 5.0)
    assert at["c"] is params["c"]


def test_accumulated_gradients_are_all_taken_at_one_place() -> None:
    optimizer = optax.MultiSteps(looking_ahead(2.0), every_k_schedule=2)
    params = {"x": jnp.asarray([1.0])}
    state, places = optimizer.init(params), []
    for _ in range(4):
        at = gradient_params(state, params)
        places.append(float(at["x"][0]))
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(at, state, params)  # the gradient of ½x²
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(places, [1.0, 1.0, 2.9, 2.9], rtol=1e-6)


def test_the_location_has_the_dtypes_of_the_parameters() -> None:
    params = {"x": jnp.ones((2,), jnp.bfloat16)}
    offset = AttendedOffset({"x": jnp.asarray([0.5, -0.25], jnp.float32)})
    at = gradient_params((offset,), params)["x"]
    assert at.dtype == jnp.bfloat16
    np.testing.assert_array_equal(at.astype(jnp.float32), [1.5, 0.75])


def test_parameters_of_another_tree_or_shape_are_refused() -> None:
    state = looking_ahead(1.0).init(PARAMS)
    with pytest.raises(ValueError, match=r"`params` must be the tree .*'b'.*got parameters"):
        gradient_params(state, {"a": PARAMS["a"]})
    with pytest.raises(ValueError, match=r"offset of shape \(2,\) for a parameter of shape \(3,\)"):
        gradient_params(state, {**PARAMS, "a": jnp.ones(3)})


def test_a_curve_can_be_evaluated_elsewhere_than_where_it_trains() -> None:
    task = Bowl()
    optimizer = optax.contrib.schedule_free_adamw(0.1, warmup_steps=2)
    settings: dict[str, Any] = {
        "eval_every": 3,
        "num_points": 3,
        "splits": ("train",),
        "num_eval_batches": 2,
    }
    with jax.numpy_dtype_promotion("standard"):  # optax's schedule-free mixes int32 and float32 itself
        trained_at = inner_loop.train_curve(
            task, optax.with_extra_args_support(optimizer), jax.random.key(0), **settings
        )
        curve = inner_loop.train_curve(
            task,
            optax.with_extra_args_support(optimizer),
            jax.random.key(0),
            eval_params=optax.contrib.schedule_free_eval_params,
            **settings,
        )
        init_key, train_key, eval_key = jax.random.split(jax.random.key(0), 3)
        state = inner_loop.init_inner(task, optax.with_extra_args_support(optimizer), init_key)
        state = inner_loop.unroll(
            task, optax.with_extra_args_support(optimizer), state, train_key, start=0, stop=6
        )
        params = optax.contrib.schedule_free_eval_params(state.optimizer_state, state.task_state.params)
    expected = inner_loop.mean_loss(task, TaskState(params), eval_key, num_batches=2)
    np.testing.assert_allclose(curve.losses["train"][2], expected, rtol=1e-5)
    assert float(jnp.abs(trained_at.losses["train"][2] - expected)) > 1e-3 * float(expected)
