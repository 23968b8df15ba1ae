"""Logistic regression, the slow problems, and what all formulas share."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from lopt.training_gradient import value_and_grad
from lopt.types import TaskState
from task_generator.families import FAMILIES
from task_generator.families.logistic_regression import LogisticRegressionConfig
from task_generator.families.slow_convergence import SlowConvergenceConfig, coupled_chain, min_max
from task_generator.families.slow_convergence import oscillating_valley as valley
from task_generator.families.synthetic import SyntheticConfig

KEY = jax.random.key(0)
SYNTHETIC = [name for name, cls in FAMILIES.items() if issubclass(cls, SyntheticConfig)]


@functools.cache
def _task(config: Any) -> Any:
    family = config.build()
    return family.task(jax.jit(family.sample_dynamic)(KEY))


def _value_and_grad(task: Any, state: TaskState, key: jax.Array, batch: Any) -> Any:
    """As one program: dispatched one by one, each operation compiles on its own."""
    return jax.jit(lambda *args: value_and_grad(task, *args))(state, key, batch)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_the_normalised_loss_is_one_at_the_start_and_zero_at_the_bound(name: str) -> None:
    task = _task(FAMILIES[name].example())
    bound = task.config.lower_bound()
    state = task.init(KEY)
    whole = task.config.all_examples(task.dynamic.problem)
    assert float(task.normalize(task.loss(state, KEY, whole)[0])) == pytest.approx(1.0, abs=1e-5)
    assert float(task.normalize(jnp.float32(bound))) == 0.0
    assert bound >= 0


# Logistic regression.


def _logistic_loss(weights: np.ndarray, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    margins = labels * (inputs @ weights[:-1] + weights[-1])
    pull = -labels / (1 + np.exp(margins)) / len(labels)
    return np.logaddexp(0, -margins).mean(), np.append(inputs.T @ pull, pull.sum())


def _data(task: Any) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.asarray(a, np.float64) for a in task.dynamic.problem)  # type: ignore[return-value]


@pytest.mark.parametrize("separable", [True, False])
def test_logistic_regression_can_be_solved_only_if_it_is_separable(separable: bool) -> None:
    config = LogisticRegressionConfig(num_features=5, num_examples=200, separable=separable, batch_size=None)
    task = _task(config)
    inputs, labels = _data(task)
    assert 0.2 < (labels > 0).mean() < 0.8
    best = scipy.optimize.minimize(
        _logistic_loss, np.zeros(6), args=(inputs, labels), jac=True, options={"maxiter": 500}
    )
    bound = config.lower_bound()
    if separable:
        assert bound == 0.0
        assert best.fun < 1e-3
    else:
        assert bound == pytest.approx(0.2 * np.log(2))
        assert best.fun > bound
        assert best.fun < np.log(2)


def test_the_logistic_loss_and_gradient_equal_float64() -> None:
    config = LogisticRegressionConfig(num_features=5, num_examples=200, separable=False, batch_size=None)
    task = _task(config)
    state = task.init(KEY)
    (loss, _), grads = _value_and_grad(task, state, KEY, task.batch(KEY))
    weights = np.append(np.asarray(state.params["weights"], np.float64), float(state.params["bias"]))
    expected, slope = _logistic_loss(weights, *_data(task))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(np.append(grads["weights"], grads["bias"]), slope, rtol=1e-4, atol=1e-6)


def test_logistic_minibatch_gradients_are_unbiased() -> None:
    task = _task(LogisticRegressionConfig(num_features=5, num_examples=100, separable=True, batch_size=10))
    state = task.init(KEY)

    def one(key: jax.Array) -> jax.Array:
        return value_and_grad(task, state, key, task.batch(key))[1]["weights"]

    shown = np.asarray(
        jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(KEY, 20_000)), np.float64
    )
    weights = np.append(np.asarray(state.params["weights"], np.float64), 0.0)
    expected = _logistic_loss(weights, *_data(task))[1][:-1]
    errors = shown.std(axis=0, ddof=1) / np.sqrt(len(shown))
    assert errors.min() > 0
    assert (np.abs(shown.mean(axis=0) - expected) <= 4.5 * errors).all()


# Slow convergence.


def test_slow_problems_equal_float64() -> None:
    x = np.random.default_rng(0).normal(size=9).astype(np.float32)
    wide = x.astype(np.float64)
    squares = wide**2
    expected = {
        valley: 1 / np.linalg.norm(wide) + np.sum((wide[1:] - np.pi * np.cos(wide[:-1])) ** 2),
        coupled_chain: squares[0] + np.sum(squares[1:] / (squares[:-1] + 1e-6)),
        min_max: squares.max() + 1 / squares.min() - 2,
    }
    for function, value in expected.items():
        assert float(function(jnp.asarray(x))) == pytest.approx(value, rel=1e-4)


def test_the_valley_falls_towards_zero_all_the_way_out() -> None:
    first = np.arange(1, 40) * 2 * np.pi  # cos = 1: the floor of the valley is at (first, π)
    floor = jnp.asarray(np.stack([first, np.full_like(first, np.pi)], axis=1), jnp.float32)
    values, slopes = jax.vmap(jax.value_and_grad(valley))(floor)
    assert (np.diff(np.asarray(values)) < 0).all()
    assert float(values[-1]) < 0.005
    assert (np.asarray(slopes[:, 0]) < 0).all()  # downhill is outwards


def test_the_chain_is_zero_at_zero_and_needs_its_last_variable_first() -> None:
    value, slope = jax.value_and_grad(coupled_chain)(jnp.zeros(6))
    assert float(value) == 0.0
    np.testing.assert_array_equal(slope, np.zeros(6))
    shrunk = lambda i: float(coupled_chain(jnp.ones(6).at[i].set(0.1)))
    assert float(coupled_chain(jnp.ones(6))) == pytest.approx(6.0, rel=1e-4)
    assert shrunk(5) < 6.0
    assert all(shrunk(i) > 50.0 for i in range(5))


def test_only_the_smallest_and_the_largest_variable_have_a_gradient() -> None:
    x = jnp.asarray([0.9, -0.2, 1.5, -3.0, 0.5])
    slope = np.asarray(jax.grad(min_max)(x))
    np.testing.assert_allclose(slope, [0, -2 / -(0.2**3), 0, -6.0, 0], rtol=1e-5)
    solved = jnp.asarray([1.0, -1.0, 1.0])
    assert float(min_max(solved)) == 0.0
    rng = np.random.default_rng(0)
    others = jnp.asarray(rng.normal(size=(200, 3)), jnp.float32)
    assert (np.asarray(jax.vmap(min_max)(others)) > 0).all()


def test_a_slow_problem_is_the_one_named() -> None:
    for name, function in {"valley": valley, "chain": coupled_chain, "min_max": min_max}.items():
        task = _task(SlowConvergenceConfig(problem=name, dimension=12))
        state = task.init(KEY)
        expected = float(function(state.params["x"]))
        assert float(task.loss(state, KEY, ())[0]) == pytest.approx(expected, rel=1e-6)


def test_bfloat16_parameters_give_a_float32_loss() -> None:
    task = _task(LogisticRegressionConfig(num_features=5, separable=True, batch_size=10, noisy=True))
    state = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), task.init(KEY))
    (loss, _), grads = _value_and_grad(task, TaskState(*state), KEY, task.batch(KEY))
    assert loss.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}
