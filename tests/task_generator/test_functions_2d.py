"""The nine functions against the textbooks' formulas in float64: minima, slopes, and float32 near the minima."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from task_generator.families.functions_2d import FUNCTIONS, Functions2DConfig, switch_function

pi = np.pi
cases = pytest.mark.parametrize("name", FUNCTIONS)


def _styblinski_tang(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.5 * (x**4 - 16 * x**2 + 5 * x + y**4 - 16 * y**2 + 5 * y) + 2 * 39.16616570377141


def _ackley(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    radius, waves = np.sqrt((x**2 + y**2) / 2), (np.cos(2 * pi * x) + np.cos(2 * pi * y)) / 2
    return -20 * np.exp(-0.2 * radius) - np.exp(waves) + 20 + np.e


TEXTBOOK: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "ackley": _ackley,
    "beale": lambda x, y: (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2,
    "booth": lambda x, y: (x + 2 * y - 7) ** 2 + (2 * x + y - 5) ** 2,
    "branin": lambda x, y: (
        (y - 5.1 / (4 * pi**2) * x**2 + 5 / pi * x - 6) ** 2
        + 10 * (1 - 1 / (8 * pi)) * np.cos(x)
        + 10
        - 0.39788735772973816
    ),
    "log_sum_exp": lambda x, y: (
        np.log(np.exp(x + 3 * y - 0.1) + np.exp(x - 3 * y - 0.1) + np.exp(-x - 0.1) + 1)
        - np.log(1 + 2 * np.sqrt(2) * np.exp(-0.1))
    ),
    "matyas": lambda x, y: 0.26 * (x**2 + y**2) - 0.48 * x * y,
    "michalewicz": lambda x, y: (
        2 - np.sin(x) * np.sin(x**2 / pi) ** 20 - np.sin(y) * np.sin(2 * y**2 / pi) ** 20
    ),
    "rosenbrock": lambda x, y: 100 * (y - x**2) ** 2 + (1 - x) ** 2,
    "styblinski_tang": _styblinski_tang,
}
"""As printed in the collection, less the minimum that it lists."""


def _grid(name: str, points: int) -> tuple[np.ndarray, np.ndarray]:
    function = FUNCTIONS[name]
    axes = [np.linspace(low, high, points) for low, high in zip(function.low, function.high, strict=True)]
    x, y = np.meshgrid(*axes, indexing="ij")
    return x.ravel(), y.ravel()


@cases
def test_rearranged_formulas_equal_the_textbooks(name: str) -> None:
    x, y = _grid(name, 41)
    with jax.enable_x64(True):
        ours = np.asarray(FUNCTIONS[name].value(jnp.asarray(x), jnp.asarray(y)))
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, TEXTBOOK[name](x, y), rtol=1e-11, atol=1e-11)


@cases
def test_listed_minimisers_have_the_listed_minimum_and_no_slope(name: str) -> None:
    function = FUNCTIONS[name]
    for point in function.minimisers:
        with jax.enable_x64(True):
            at = jnp.asarray(point, jnp.float64)
            value, slope = jax.value_and_grad(lambda p: function.value(p[0], p[1]))(at)
        assert float(value) == pytest.approx(function.minimum, abs=1e-12)
        np.testing.assert_allclose(
            slope, 0.0, atol=1e-5
        )  # Branin's minimisers are listed with three decimals


@cases
def test_nothing_in_the_usual_domain_is_lower_and_a_search_ends_at_a_minimiser(name: str) -> None:
    function, reference = FUNCTIONS[name], TEXTBOOK[name]
    bounds = list(zip(function.low, function.high, strict=True))
    x, y = _grid(name, 401)
    values = reference(x, y)
    assert values.min() >= function.minimum - 1e-9
    best = int(values.argmin())
    found = scipy.optimize.minimize(
        lambda p: reference(p[0], p[1]),
        (x[best], y[best]),
        method="Nelder-Mead",
        bounds=bounds,
        options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000},
    )
    assert found.fun == pytest.approx(function.minimum, abs=1e-9)
    assert min(np.abs(found.x - point).max() for point in function.minimisers) < 1e-3


@cases
def test_float32_resolves_the_approach_to_the_minimum(name: str) -> None:
    function = FUNCTIONS[name]
    point = np.asarray(function.minimisers[0])
    steps = np.asarray([1e-1, 1e-2, 1e-3])[:, None] * np.asarray([0.6, 0.8])
    x, y = (point + steps).astype(np.float32).T
    ours = np.asarray(function.value(jnp.asarray(x), jnp.asarray(y)))
    reference = TEXTBOOK[name](x.astype(np.float64), y.astype(np.float64))
    # Where the minimum is no sum of squares, the value is the difference of numbers around 1.
    rounding = 1e-6 if name in ("log_sum_exp", "michalewicz") else 1e-9
    np.testing.assert_allclose(ours, reference, rtol=2e-2, atol=rounding)
    assert (ours >= -rounding).all()


def test_the_far_plane_comes_as_close_to_zero_as_one_likes() -> None:
    """Michalewicz: the bound of zero is right for a search that leaves the usual domain."""
    k = np.arange(2_000_000, dtype=np.float64)
    x = pi * np.sqrt(k + 0.5)  # sin²⁰(x² / π) is 1 there
    value = TEXTBOOK["michalewicz"](x[np.sin(x).argmax()], np.float64(pi / 2))
    assert 0 <= value < 1e-3


def test_the_gradient_of_ackley_at_its_tip_is_zero() -> None:
    slope = jax.grad(lambda p: FUNCTIONS["ackley"].value(p[0], p[1]))(jnp.zeros(2))
    np.testing.assert_array_equal(slope, np.zeros(2))


def test_choosing_by_index_equals_each_function_and_overflow_stays_where_it_is() -> None:
    points = jnp.asarray([[1.3, 0.7]] * len(FUNCTIONS) + [[1e15, -1e15]])
    index = jnp.asarray([*range(len(FUNCTIONS)), 0], jnp.int32)  # the last: Ackley, where Beale overflows
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(switch_function, argnums=1)))(index, points)
    for i, function in enumerate(FUNCTIONS.values()):
        value, slope = jax.value_and_grad(lambda p, f=function: f.value(p[0], p[1]))(points[i])
        np.testing.assert_allclose(values[i], value, rtol=1e-5)
        np.testing.assert_allclose(slopes[i], slope, rtol=1e-4, atol=1e-5)
    assert float(values[-1]) == pytest.approx(20 + np.e - 1, abs=2.0)
    assert np.isfinite(np.asarray(slopes[-1])).all()
    assert not np.isfinite(float(FUNCTIONS["beale"].value(*points[-1])))


def test_functions_are_drawn_uniformly_and_starts_lie_in_their_domains() -> None:
    family = Functions2DConfig().build()
    draws = jax.jit(jax.vmap(family.sample_dynamic))(jax.random.split(jax.random.key(0), 900))
    index, start = np.asarray(draws.problem), np.asarray(draws.start["x"])
    counts = np.bincount(index, minlength=9)
    assert abs(counts - 100).max() < 4 * 9.5  # the standard deviation is √(900 · 1/9 · 8/9) = 9.4
    for i, function in enumerate(FUNCTIONS.values()):
        inside = start[index == i]
        low, high = np.asarray(function.low), np.asarray(function.high)
        assert ((inside >= low) & (inside <= high)).all()
        # That none of some hundred uniform draws comes within a tenth of a side has a chance of 3e-5.
        assert (inside.min(axis=0) < low + (high - low) / 10).all()
        assert (inside.max(axis=0) > high - (high - low) / 10).all()


def test_a_fixed_function_is_the_one_named() -> None:
    family = Functions2DConfig(function="booth").build()
    dynamic = family.sample_dynamic(jax.random.key(1))
    task = family.task(dynamic)
    state = task.init(jax.random.key(2))
    x, y = np.asarray(state.params["x"], np.float64)
    assert float(task.loss(state, jax.random.key(0), ())[0]) == pytest.approx(
        TEXTBOOK["booth"](x, y), rel=1e-5
    )
