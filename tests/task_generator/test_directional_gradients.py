"""The gradient along random directions (App. C.5): its moments, against closed forms and whole draws in NumPy."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augmented_toys import KEY, assert_mean, same, shown, toy
from toy_tasks import SIZE, vector

from task_generator.augmentations import SubsampledDirectionsConfig
from task_generator.augmentations.subsampled_directions import average_direction


def directions(gradient: jax.Array, count: int, draws: int, *, signed: bool) -> np.ndarray:
    keys = jax.random.split(KEY, draws)
    one = lambda key: average_direction(gradient, key, count, ignore_magnitude=signed)
    return np.asarray(jax.jit(jax.vmap(one))(keys), np.float64)


def test_directional_derivatives_average_to_the_gradient_over_the_number_of_parameters() -> None:
    """E[(g·d)d] = g/P, for any number of directions; E[(g·d)²] = ‖g‖²/P is the squared length for one."""
    gradient = jnp.array([1.0, -2.0, 0.5, 0.0, 3.0])
    for count in (1, 3):
        assert_mean(directions(gradient, count, 20_000, signed=False), np.asarray(gradient) / SIZE)
    one = directions(gradient, 1, 20_000, signed=False)
    assert_mean(np.sum(one**2, axis=1), np.asarray(jnp.sum(gradient**2) / SIZE))


def test_signed_directions_average_to_the_gradients_direction() -> None:
    """E[sign(g·d)d] = E|d₁| g/‖g‖ with E|d₁| = Γ(P/2) / (√π Γ((P+1)/2))."""
    gradient = jnp.array([1.0, -2.0, 0.5, 0.0, 3.0])
    mean = math.gamma(SIZE / 2) / (math.sqrt(math.pi) * math.gamma((SIZE + 1) / 2))
    expected = mean * np.asarray(gradient / jnp.linalg.norm(gradient))
    draws = directions(gradient, 2, 20_000, signed=True)
    assert_mean(draws, expected)
    smaller = directions(1e-3 * gradient, 2, 20_000, signed=True)
    np.testing.assert_allclose(smaller, draws, atol=1e-6)  # the magnitude is ignored
    # Independent directions: averaging K of them leaves 1/K of the spread around the mean.
    np.testing.assert_allclose(np.sum(draws.var(axis=0)), (1 - mean**2) / 2, rtol=0.05)


@pytest.mark.parametrize(
    ("size", "signed"), [pytest.param(2, True, marks=pytest.mark.slow), (6, False), (6, True)]
)
def test_directions_that_are_not_drawn_whole_average_like_those_that_are(size: int, signed: bool) -> None:
    """First to fourth moments, along the gradient and across it, against the definition in NumPy."""
    gradient, count, draws = 0.5 * np.arange(1.0, size + 1), 4, 40_000
    whole = np.random.default_rng(0).normal(size=(draws, count, size))
    whole /= np.linalg.norm(whole, axis=-1, keepdims=True)
    weights = whole @ gradient
    expected = np.mean((np.sign(weights) if signed else weights)[..., None] * whole, axis=1)

    def moments(v: np.ndarray) -> np.ndarray:
        along, squared = v @ gradient, np.sum(v**2, axis=1)
        pairs = (v[:, :, None] * v[:, None, :]).reshape(draws, -1)
        return np.column_stack(
            [v, pairs, along**3, squared * along, along**4, along**2 * squared, squared**2]
        )

    drawn = moments(directions(jnp.asarray(gradient, jnp.float32), count, draws, signed=signed))
    assert_mean(drawn - moments(expected), np.zeros(drawn.shape[1]))


def test_one_signed_direction_is_a_unit_vector_in_the_whole_tree_and_new_in_every_step() -> None:
    _, task = toy(SubsampledDirectionsConfig(num_directions=1, ignore_magnitude=True))
    state = task.init(KEY)
    seen = [vector(shown(task, state, jax.random.key(seed))[2]) for seed in (0, 0, 1)]
    for gradient in seen:
        assert float(jnp.linalg.norm(gradient)) == pytest.approx(1.0, abs=1e-6)
    same(seen[0], seen[1])
    assert not np.allclose(seen[0], seen[2])


def test_of_one_parameter_the_only_direction_is_the_gradient_and_of_zero_it_is_zero() -> None:
    gradient = jnp.array([-3.0])
    np.testing.assert_allclose(directions(gradient, 4, 8, signed=False), np.full((8, 1), -3.0), rtol=1e-6)
    np.testing.assert_allclose(directions(gradient, 4, 8, signed=True), np.full((8, 1), -1.0), rtol=1e-6)
    for signed in (False, True):
        same(directions(jnp.zeros(3), 4, 2, signed=signed), np.zeros((2, 3)))


def test_many_directions_take_the_memory_of_one() -> None:
    size, count = 10_000, 1024
    program = jax.jit(lambda g, key: average_direction(g, key, count, ignore_magnitude=False))
    memory = program.lower(jnp.zeros(size), KEY).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 10 * 4 * size
