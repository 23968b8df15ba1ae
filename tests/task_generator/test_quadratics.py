"""The quadratics against float64 and closed forms: noise of the stated size and without a mean."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.training_gradient import value_and_grad
from lopt.types import TaskState
from task_generator.families.minibatch_quadratic import MinibatchQuadraticConfig
from task_generator.families.noisy_quadratic import NoisyQuadraticConfig
from task_generator.families.quadratics import QuadraticConfig

KEY = jax.random.key(0)


@functools.cache
def _task(config: Any) -> Any:
    family = config.build()
    return family.task(jax.jit(family.sample_dynamic)(KEY))


def _value_and_grad(task: Any, state: TaskState, key: jax.Array, batch: Any) -> Any:
    """As one program: dispatched one by one, each operation compiles on its own."""
    return jax.jit(lambda *args: value_and_grad(task, *args))(state, key, batch)


def _shown(task: Any, state: TaskState, count: int) -> np.ndarray:
    """Returns the gradients of `count` training steps at one point, [count, n], float64."""

    def one(key: jax.Array) -> jax.Array:
        return value_and_grad(task, state, jax.random.fold_in(key, 1), task.batch(key))[1]["x"]

    return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(KEY, count)), np.float64)


def _assert_mean(samples: np.ndarray, expected: np.ndarray) -> None:
    """Asserts that the samples' mean is within 4.5 standard errors: one failure in 10⁵ per coordinate by chance."""
    errors = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    assert (np.abs(samples.mean(axis=0) - expected) <= 4.5 * errors).all()


def test_the_quadratic_equals_float64_and_is_zero_at_the_solution() -> None:
    task = _task(QuadraticConfig(dimension=12))
    coupling, target = (np.asarray(a, np.float64) for a in task.dynamic.problem)
    state = task.init(KEY)
    x = np.asarray(state.params["x"], np.float64)
    (loss, _), grads = _value_and_grad(task, state, KEY, task.batch(KEY))
    residual = coupling @ x - target
    assert float(loss) == pytest.approx(0.5 * residual @ residual, rel=1e-5)
    np.testing.assert_allclose(grads["x"], coupling.T @ residual, rtol=1e-4, atol=1e-4)
    solved = TaskState({"x": jnp.asarray(np.linalg.solve(coupling, target), jnp.float32)})
    (minimum, _), slope = _value_and_grad(task, solved, KEY, ())
    assert 0 <= float(minimum) < 1e-9
    assert float(task.normalize(minimum)) < 1e-9
    np.testing.assert_allclose(slope["x"], 0.0, atol=1e-4)


def test_every_task_of_a_work_unit_has_couplings_and_a_start_of_its_own() -> None:
    family = QuadraticConfig(dimension=50).build()
    draws = jax.jit(jax.vmap(family.sample_dynamic))(jax.random.split(KEY, 2))
    assert not np.allclose(draws.problem.coupling[0], draws.problem.coupling[1])
    assert not np.allclose(draws.start["x"][0], draws.start["x"][1])
    entries = np.asarray(draws.problem.coupling, np.float64).ravel()  # 5 000 standard normal numbers
    assert abs(entries.mean()) < 4.5 / np.sqrt(entries.size)
    assert abs(entries.var() - 1) < 4.5 * np.sqrt(2 / entries.size)


@pytest.mark.parametrize("fixed", [None, 0.7])
def test_gradient_noise_has_the_stated_deviation_and_no_mean(fixed: float | None) -> None:
    task = _task(QuadraticConfig(dimension=8, noisy=True, noise_std=fixed))
    std = float(task.dynamic.noise["x"])
    assert std == pytest.approx(fixed) if fixed else 0.1 <= std <= 2.0
    state = task.init(KEY)
    shown = _shown(task, state, 20_000)
    true = np.asarray(jax.grad(lambda x: task.loss(TaskState({"x": x}), KEY, ())[0])(state.params["x"]))
    _assert_mean(shown, true)
    variances = shown.var(axis=0, ddof=1)
    assert (np.abs(variances / std**2 - 1) < 4.5 * np.sqrt(2 / len(shown))).all()
    correlations = np.corrcoef(shown.T) - np.eye(8)
    assert np.abs(correlations).max() < 5 / np.sqrt(len(shown))


def test_the_loss_has_no_noise_and_the_same_key_gives_the_same_noise() -> None:
    quiet, noisy = (_task(QuadraticConfig(dimension=8, noisy=flag)) for flag in (False, True))
    state = quiet.init(KEY)
    (loss, _), grads = _value_and_grad(noisy, state, KEY, ())
    assert float(loss) == float(quiet.loss(state, KEY, ())[0])
    np.testing.assert_array_equal(grads["x"], _value_and_grad(noisy, state, KEY, ())[1]["x"])
    assert not np.allclose(grads["x"], _value_and_grad(quiet, state, KEY, ())[1]["x"])


def test_noise_is_drawn_log_uniformly_from_the_papers_range() -> None:
    family = QuadraticConfig(dimension=2, noisy=True).build()
    draws = jax.jit(jax.vmap(family.sample_dynamic))(jax.random.split(KEY, 2000))
    uniform = np.log(np.asarray(draws.noise["x"], np.float64) / 0.1) / np.log(20)
    assert uniform.min() >= -1e-6
    assert uniform.max() <= 1 + 1e-6
    counts = np.histogram(uniform, bins=4, range=(-1e-6, 1 + 1e-6))[0]
    assert np.abs(counts - 500).max() < 4.5 * np.sqrt(2000 * 0.25 * 0.75)


def test_a_strength_without_noise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`noise_std` is 0\.5, but `noisy` is false"):
        QuadraticConfig(dimension=3, noise_std=0.5)
    assert QuadraticConfig(dimension=3, noisy=True, noise_std=0.5).overrides_could_be_sampled()
    assert not QuadraticConfig(dimension=3, noisy=True, noise_std=5.0).overrides_could_be_sampled()


def test_minibatch_gradients_are_unbiased_and_vanish_at_the_minimum() -> None:
    task = _task(MinibatchQuadraticConfig(dimension=6, batch_size=10, num_examples=100))
    inputs = np.asarray(task.dynamic.problem.inputs, np.float64)
    state = task.init(KEY)
    x = np.asarray(state.params["x"], np.float64)
    shown = _shown(task, state, 20_000)
    _assert_mean(shown, 2 * inputs.T @ (inputs @ x) / len(inputs))
    assert shown.std(axis=0).min() > 0.01
    assert float(task.dynamic.start_loss) == pytest.approx(np.mean((inputs @ x) ** 2), rel=1e-5)
    origin = TaskState({"x": jnp.zeros(6)})
    assert float(task.loss(origin, KEY, task.batch(KEY))[0]) == 0.0
    np.testing.assert_array_equal(_shown(task, origin, 5), np.zeros((5, 6)))


def test_minibatches_hold_a_problems_own_examples() -> None:
    task = _task(MinibatchQuadraticConfig(dimension=6, batch_size=30, num_examples=40))
    batch, inputs = np.asarray(task.batch(KEY).inputs), np.asarray(task.dynamic.problem.inputs)
    assert batch.shape == (30, 6)
    assert (batch[:, None] == inputs[None]).all(axis=-1).any(axis=1).all()


def test_the_noisy_quadratic_has_the_stated_spectrum_noise_and_loss() -> None:
    task = _task(NoisyQuadraticConfig(dimension=16, decay=1.0, batch_size=4.0))
    curvatures = 1 / np.arange(1, 17)
    np.testing.assert_allclose(task.dynamic.problem.curvatures, curvatures, rtol=1e-5)
    state = task.init(KEY)
    x = np.asarray(state.params["x"], np.float64)
    assert float(task.loss(state, KEY, ())[0]) == pytest.approx(0.5 * curvatures @ x**2, rel=1e-5)
    shown = _shown(task, state, 20_000)
    _assert_mean(shown, curvatures * x)
    variances = shown.var(axis=0, ddof=1)
    assert (np.abs(variances / (curvatures / 4) - 1) < 4.5 * np.sqrt(2 / len(shown))).all()


def test_gradient_descent_on_the_noisy_quadratic_settles_where_theory_says() -> None:
    """x ← x − a (h x + noise) has the stationary variance a (1 / B) / (2 − a h), decayed and refilled each step."""
    task = _task(NoisyQuadraticConfig(dimension=4, decay=0.5, batch_size=2.0))
    rate, curvatures = 0.5, np.arange(1, 5) ** -0.5

    def run(key: jax.Array) -> jax.Array:
        def step(i: jax.Array, state: TaskState) -> TaskState:
            grads = value_and_grad(task, state, jax.random.fold_in(key, i), ())[1]
            return TaskState(jax.tree.map(lambda p, g: p - rate * g, state.params, grads))

        return jax.lax.fori_loop(0, 60, step, task.init(key)).params["x"]

    ends = np.asarray(jax.jit(lambda keys: jax.lax.map(run, keys))(jax.random.split(KEY, 4000)), np.float64)
    expected = rate / 2.0 / (2 - rate * curvatures)
    assert (np.abs(ends.var(axis=0) / expected - 1) < 4.5 * np.sqrt(2 / len(ends))).all()


def test_decay_and_batch_size_are_drawn_per_task_within_their_ranges() -> None:
    config = NoisyQuadraticConfig(dimension=2)
    spectra = jax.jit(jax.vmap(config.sample_problem))(jax.random.split(KEY, 500))
    decay = -np.log2(np.asarray(spectra.curvatures[:, 1], np.float64))
    batch = np.asarray(spectra.batch_size, np.float64)
    for values, low, high in ((decay, 0.5, 1.5), (np.log10(batch), 0.0, 3.0)):
        assert values.min() >= low - 1e-5
        assert values.max() <= high + 1e-5
        assert values.min() < low + 0.05 * (high - low)
        assert values.max() > high - 0.05 * (high - low)
    assert not NoisyQuadraticConfig(dimension=2, decay=3.0).overrides_could_be_sampled()
