"""`learnable_sgd`, `learnable_sgdm` and `learnable_adam`: optax at the hyper-parameters that theta stands for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lopt.architectures.learnable_adam import LearnableAdamConfig
from lopt.architectures.learnable_sgd import LearnableSgdConfig
from lopt.architectures.learnable_sgdm import LearnableSgdmConfig
from lopt.contract import ArchitectureConfig

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": {"scalar": jnp.float32(0.5)}}

Twin = Callable[[], optax.GradientTransformation]
CASES: dict[str, tuple[ArchitectureConfig, Twin]] = {
    "sgd": (LearnableSgdConfig(), lambda: optax.sgd(0.01)),
    "sgd, fast": (LearnableSgdConfig(initial_learning_rate=0.3), lambda: optax.sgd(0.3)),
    "sgdm": (LearnableSgdmConfig(), lambda: optax.sgd(0.01, momentum=0.9)),
    "sgdm, long": (
        LearnableSgdmConfig(initial_learning_rate=1e-3, initial_momentum=0.995),
        lambda: optax.sgd(1e-3, momentum=0.995),
    ),
    "sgdm, none": (LearnableSgdmConfig(initial_momentum=0.0), lambda: optax.sgd(0.01)),
    "adam": (LearnableAdamConfig(), lambda: optax.adam(1e-3)),
    "adam, other": (
        LearnableAdamConfig(
            initial_learning_rate=0.1, initial_beta1=0.5, initial_beta2=0.8, initial_epsilon=0.3
        ),
        lambda: optax.adam(0.1, b1=0.5, b2=0.8, eps=0.3),
    ),
    "adam, released": (LearnableAdamConfig.released(), lambda: optax.adam(1e-3, eps_root=1e-8)),
}
LEARNABLE = {
    "sgd": LearnableSgdConfig,
    "sgdm": LearnableSgdmConfig,
    "adam": LearnableAdamConfig,
    "adam, released": LearnableAdamConfig.released,
}


def gradients(step: int, size: float) -> Any:
    return jax.tree.map(lambda p: size * 4.0 ** math.cos(step) * jnp.sin(7.0 * p + step), PARAMS)


def train(opt: optax.GradientTransformationExtraArgs, steps: int, size: float) -> Any:
    params, state, update = PARAMS, opt.init(PARAMS), jax.jit(opt.update)
    for step in range(steps):
        updates, state = update(gradients(step, size), state, params)
        params = optax.apply_updates(params, updates)
    return params


def initial(config: ArchitectureConfig, num_steps: Any = 30) -> optax.GradientTransformationExtraArgs:
    learned = config.build()
    return learned.transform(learned.init_theta(jax.random.key(0)), num_steps=num_steps)


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("size", [1e-5, 1.0, 1e5])
def test_is_optax_at_its_hyperparameters(name: str, size: float) -> None:
    config, twin = CASES[name]
    ours = train(initial(config), 30, size)
    with jax.numpy_dtype_promotion("standard"):
        theirs = train(optax.with_extra_args_support(twin()), 30, size)
    for mine, other, begun in zip(*map(jax.tree.leaves, (ours, theirs, PARAMS)), strict=True):
        moved = float(jnp.linalg.norm(other - begun))
        assert float(jnp.linalg.norm(mine - other)) <= 3e-5 * moved + 1e-6


def test_the_released_adam_hardly_moves_where_gradients_are_small() -> None:
    moved = {
        name: float(jnp.linalg.norm(train(initial(config), 5, 1e-6)["w"] - PARAMS["w"]))
        for name, config in (("ours", LearnableAdamConfig()), ("released", LearnableAdamConfig.released()))
    }
    assert moved["released"] < 0.1 * moved["ours"]


@pytest.mark.parametrize("name", sorted(LEARNABLE))
def test_theta_is_a_dictionary_of_float32_scalars(name: str) -> None:
    learned = LEARNABLE[name]().build()
    theta = learned.init_theta(jax.random.key(0))
    assert type(theta) is dict
    assert len(theta) == {"sgd": 1, "sgdm": 2, "adam": 4}[name.split(",")[0]]
    assert {(x.shape, x.dtype) for x in theta.values()} == {((), jnp.dtype("float32"))}
    assert theta == learned.init_theta(jax.random.key(1))


def test_theta_is_logarithms() -> None:
    theta = LearnableAdamConfig().build().init_theta(jax.random.key(0))
    expected = {
        "log_learning_rate": math.log(1e-3),
        "log_one_minus_beta1": math.log(0.1),
        "log_one_minus_beta2": math.log(1e-3),
        "log_epsilon": math.log(1e-8),
    }
    assert sorted(theta) == sorted(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(theta[key], value, rtol=1e-5)
    momentum = LearnableSgdmConfig().build().init_theta(jax.random.key(0))["log_one_minus_momentum"]
    np.testing.assert_allclose(momentum, math.log(0.1), rtol=1e-6)


def test_meta_gradient_of_sgd_is_the_closed_form() -> None:
    # On ½aφ² from φ = 1, K steps leave (1 − αa)ᴷ; with θ = log α the slope is −αaK(1 − αa)ᴷ⁻¹.
    learned, a, num_steps, rate = LearnableSgdConfig().build(), 3.0, 6, 0.1

    def last(theta: Any) -> jax.Array:
        opt = learned.transform(theta, num_steps=num_steps)
        params = jnp.float32(1.0)
        state = opt.init(params)
        for _ in range(num_steps):
            updates, state = opt.update(a * params, state)
            params = params + updates
        return params

    slope = jax.grad(last)({"log_learning_rate": jnp.log(jnp.float32(rate))})["log_learning_rate"]
    np.testing.assert_allclose(slope, -rate * a * num_steps * (1 - rate * a) ** (num_steps - 1), rtol=1e-5)


@pytest.mark.parametrize("name", sorted(LEARNABLE))
def test_meta_gradient_is_finite_and_the_slope(name: str) -> None:
    learned = LEARNABLE[name]().build()
    theta = learned.init_theta(jax.random.key(0))
    steps = jax.tree.map(lambda *g: jnp.stack(g), *(gradients(step, 1.0) for step in range(4)))

    @jax.jit
    def moved(theta: Any, size: jax.Array) -> jax.Array:
        opt = learned.transform(theta, num_steps=4)

        def body(carry: Any, grads: Any) -> tuple[Any, None]:
            updates, state = opt.update(jax.tree.map(lambda g: size * g, grads), carry[1])
            return (jax.tree.map(jnp.add, carry[0], updates), state), None

        zero = jax.tree.map(jnp.zeros_like, PARAMS)
        (distance, _), _ = jax.lax.scan(body, (zero, opt.init(PARAMS)), steps)
        return sum((jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(distance)), jnp.float32(0.0))

    slope_at = jax.jit(jax.grad(moved))
    for size in (0.0, 1e-20, 1e5, 1e20):
        slope = slope_at(theta, jnp.float32(size))
        assert all(bool(jnp.isfinite(s)) for s in slope.values()), (size, slope)
    one = jnp.float32(1.0)
    size = float(moved(theta, one))
    for key, slope in slope_at(theta, one).items():
        high, low = (moved({**theta, key: theta[key] + d}, one) for d in (0.02, -0.02))
        np.testing.assert_allclose(slope, (high - low) / 0.04, rtol=0.01, atol=1e-4 * size, err_msg=key)


@pytest.mark.parametrize("name", sorted(LEARNABLE))
def test_needs_neither_parameters_nor_loss(name: str) -> None:
    learned = LEARNABLE[name]().build()
    assert learned.reads_loss is False
    opt = initial(learned.config)
    bare, _ = opt.update(gradients(0, 1.0), opt.init(PARAMS))
    full, _ = opt.update(gradients(0, 1.0), opt.init(PARAMS), PARAMS, value=jnp.float32(3.0), extra=1)
    jax.tree.map(np.testing.assert_array_equal, bare, full)


@pytest.mark.parametrize("name", sorted(LEARNABLE))
def test_the_number_of_steps_is_checked_and_otherwise_ignored(name: str) -> None:
    config = LEARNABLE[name]()
    for wrong in (0, 2.5, -1, None):
        with pytest.raises(ValueError, match="`num_steps` must be the number of updates of the run"):
            initial(config, num_steps=wrong)
    short, long = (train(initial(config, num_steps=steps), 3, 1.0) for steps in (1, 10**6))
    jax.tree.map(np.testing.assert_array_equal, short, long)


@pytest.mark.parametrize("config_type", [LearnableSgdmConfig, LearnableAdamConfig])
def test_accumulators_are_float32_or_half_of_that(config_type: Any) -> None:
    params = {"w": jnp.ones((32, 32), jnp.bfloat16)}
    size = lambda state: sum(x.nbytes for x in jax.tree.leaves(state))
    full, half = (initial(config_type(state_dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert size(half.init(params)) < 0.51 * size(full.init(params))
    for opt in (full, half):
        updates, state = opt.update(params, opt.init(params), params)
        assert updates["w"].dtype == jnp.bfloat16
        dtypes = lambda tree: [x.dtype for x in jax.tree.leaves(tree)]
        assert dtypes(state) == dtypes(opt.init(params))
    exact, rounded = (train(opt, 30, 1.0) for opt in (full, half))
    for x, y, begun in zip(*map(jax.tree.leaves, (exact, rounded, PARAMS)), strict=True):
        assert float(jnp.linalg.norm(x - y)) < 0.03 * float(jnp.linalg.norm(x - begun))


def test_adam_averages_stay_unbiased_when_theta_changes_in_mid_run() -> None:
    # Constant gradients have these averages whatever the decays were: m̂ = g and v̂ = g².
    learned = LearnableAdamConfig().build()
    theta = learned.init_theta(jax.random.key(0))
    grads = gradients(0, 1.0)
    state = learned.transform(theta, num_steps=9).init(PARAMS)
    for step in range(9):
        now = {
            **theta,
            "log_one_minus_beta1": jnp.float32(-step),
            "log_one_minus_beta2": jnp.float32(-0.5 * step),
        }
        _, state = learned.transform(now, num_steps=9).update(grads, state)
        jax.tree.map(lambda m, g: np.testing.assert_allclose(m, g, rtol=1e-5), state.mean, grads)
        jax.tree.map(lambda v, g: np.testing.assert_allclose(v, g**2, rtol=1e-5), state.mean_square, grads)
