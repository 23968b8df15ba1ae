"""What varies in a compiled program: activations and their derivatives, initialisers in closed form, draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from task_generator.dynamic import (
    ACTIVATIONS,
    SAMPLED_ACTIVATIONS,
    sample_network_dynamic,
    switch_activation,
)
from task_generator.initializers import SAMPLED_INITIALIZERS, initialize

POINTS = jnp.linspace(-7.0, 7.0, 57)


@pytest.mark.parametrize("index", range(len(SAMPLED_ACTIVATIONS)))
def test_the_switch_gives_value_and_derivative_of_the_named_function(index: int) -> None:
    fn = list(SAMPLED_ACTIVATIONS.values())[index]
    chosen = jnp.int32(index)
    np.testing.assert_allclose(switch_activation(chosen, POINTS), fn(POINTS), atol=1e-6)
    derivative = jax.grad(lambda x: switch_activation(chosen, x).sum())(POINTS)
    # gelu's 1 + tanh cancels at −5: an error of 2⁻²⁴ there, times terms up to x², is 4e-6.
    np.testing.assert_allclose(derivative, jax.grad(lambda x: fn(x).sum())(POINTS), atol=4e-6)


def test_the_paper_has_eleven_activations_and_overrides_know_more() -> None:
    assert len(SAMPLED_ACTIVATIONS) == 11
    assert {"softplus", "elu"} <= set(ACTIVATIONS) - set(SAMPLED_ACTIVATIONS)


def test_every_choice_is_drawn_and_the_scale_stays_in_its_range() -> None:
    dynamic = jax.vmap(sample_network_dynamic)(jax.random.split(jax.random.key(0), 600))
    assert set(dynamic.activation.tolist()) == set(range(11))
    assert set(dynamic.initializer.tolist()) == {0, 1, 2}
    assert 0.5 <= float(dynamic.init_scale.min()) < 0.55
    assert 1.95 < float(dynamic.init_scale.max()) <= 2.0


def _kernel(kind: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    template = {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}
    return np.asarray(initialize(template, jax.random.key(3), kind, scale)["kernel"])


@pytest.mark.parametrize("shape", [(40, 20), (20, 40), (3, 3, 5, 16)])
def test_orthogonal_kernels_have_orthonormal_columns_or_rows(shape: tuple[int, ...]) -> None:
    matrix = _kernel("orthogonal", shape).reshape(-1, shape[-1])
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


@pytest.mark.parametrize("kind", SAMPLED_INITIALIZERS)
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_mean_square_weight_is_scale_squared_over_fan_in(kind: str, scale: float) -> None:
    # fan_in = 3·3·20 = 180; an orthogonal 180×60 matrix has unit columns, hence the same mean square.
    kernel = _kernel(kind, (3, 3, 20, 60), scale)
    assert np.mean(kernel**2) * 180 / scale**2 == pytest.approx(1.0, rel=0.05)


def test_uniform_kernels_fill_their_range_evenly() -> None:
    kernel = _kernel("uniform", (300, 200)) / np.sqrt(3 / 300)
    assert 0.999 < kernel.max() <= 1.0
    assert np.mean(np.abs(kernel) < 0.5) == pytest.approx(0.5, abs=0.01)


def test_truncated_normal_kernels_end_at_two_deviations_with_the_truncated_variance() -> None:
    kernel = _kernel("truncated_normal", (300, 200)) * np.sqrt(300)
    assert 1.99 < np.abs(kernel).max() <= 2.0001
    assert np.std(kernel) == pytest.approx(0.8796, rel=0.01)  # the deviation of a normal cut at ±2


@pytest.mark.parametrize("index", range(3))
def test_an_index_selects_the_initializer_of_that_place(index: int) -> None:
    template = {"a": {"kernel": jax.ShapeDtypeStruct((6, 4), jnp.float32)}, "b": jnp.zeros(4)}
    named = initialize(template, jax.random.key(1), list(SAMPLED_INITIALIZERS)[index], 1.5)
    switched = initialize(template, jax.random.key(1), jnp.int32(index), jnp.float32(1.5))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), named, switched)
    assert not switched["b"].any()
