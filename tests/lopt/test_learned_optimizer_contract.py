"""What every architecture owes its users; a newly registered one is tested the day it is registered."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from optimizers import assert_close, assert_equal, fast_for, initial_theta, perturbed_theta, small

from lopt.architectures import ARCHITECTURES
from lopt.types import LearnedOptimizer

PARAMS = {
    "matrix": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3),
    "nested": {
        "bias": jnp.zeros(3),
        "conv": 0.1 * jnp.ones((3, 3, 1, 2)),
        "deep": 0.2 * jnp.ones((2, 1, 2, 1, 2, 3)),
    },
    "scalar": jnp.float32(0.5),
    "empty": jnp.zeros((0, 4)),
}
LIGHT = {"matrix": PARAMS["matrix"], "bias": jnp.zeros(3)}
"""For what does not depend on shapes: every shape is another second of compilation, for every architecture."""


@pytest.fixture(params=sorted(ARCHITECTURES))
def learned(request: pytest.FixtureRequest) -> LearnedOptimizer:
    return shared(request.param)


@pytest.fixture(params=fast_for("hierarchical_gru", "pacer", "velo"))
def representative(request: pytest.FixtureRequest) -> LearnedOptimizer:
    """All architectures, most of them in slow tests: for what takes long and is about JAX as much as them."""
    return shared(request.param)


@functools.cache
def shared(name: str) -> LearnedOptimizer:
    return small(name)


@functools.cache
def program(learned: LearnedOptimizer) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns `init` and `update`, compiled once per architecture; weights and horizon are arguments."""
    start = lambda theta, num_steps, params: learned.transform(theta, num_steps=num_steps).init(params)
    update = lambda theta, num_steps, grads, state, params, loss: learned.transform(
        theta, num_steps=num_steps
    ).update(grads, state, params, value=loss)
    return jax.jit(start), jax.jit(update)


def ones(params: Any) -> Any:
    return jax.tree.map(jnp.ones_like, params)


def test_configuration_round_trips_and_keeps_its_fingerprint() -> None:
    for name, config_type in ARCHITECTURES.items():
        config = config_type()
        again = config_type.model_validate_json(config.canonical_json())
        assert (again, again.fingerprint()) == (config, config.fingerprint())
        assert config.architecture == name


def test_update_keeps_structure_shapes_and_dtypes(learned: LearnedOptimizer) -> None:
    params = {**PARAMS, "half": jnp.ones((3, 2), jnp.bfloat16)}
    opt = learned.transform(initial_theta(learned), num_steps=5)
    start = jax.eval_shape(opt.init, params)
    updates, state = jax.eval_shape(
        lambda state: opt.update(ones(params), state, params, value=jnp.float32(1.0)), start
    )
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert describe(updates) == describe(params)
    assert describe(state) == describe(start)


def test_scan_equals_loop(representative: LearnedOptimizer) -> None:
    theta = perturbed_theta(representative, 1)
    init, update = program(representative)
    opt = representative.transform(theta, num_steps=4)
    gradients = lambda params, i: jax.tree.map(lambda p: p + 0.1 * i, params)

    def step(carry: Any, i: jax.Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = opt.update(gradients(params, i), state, params, value=1.0 / (1.0 + i))
        return (optax.apply_updates(params, updates), state), None

    params, state = LIGHT, init(theta, 4, LIGHT)
    scanned = jax.lax.scan(step, (params, state), jnp.arange(4, dtype=jnp.float32))[0][0]
    for i in range(4):
        updates, state = update(theta, 4, gradients(params, float(i)), state, params, 1.0 / (1.0 + i))
        params = optax.apply_updates(params, updates)
    assert_close(scanned, params, rtol=1e-5, atol=1e-6)


def test_vmap_over_theta_equals_loop(representative: LearnedOptimizer) -> None:
    thetas = [perturbed_theta(representative, seed) for seed in range(3)]
    init, update = program(representative)
    second = jax.tree.map(lambda p: p - 0.3, LIGHT)

    def one(theta: Any) -> Any:
        _, state = update(theta, 7, ones(LIGHT), init(theta, 7, LIGHT), LIGHT, 2.0)
        return update(theta, 7, second, state, LIGHT, 1.0)[0]

    batched = jax.vmap(one)(jax.tree.map(lambda *x: jnp.stack(x), *thetas))
    for i, theta in enumerate(thetas):
        assert_close(jax.tree.map(lambda x, i=i: x[i], batched), one(theta), rtol=1e-4, atol=1e-6)


def test_one_program_serves_every_horizon(learned: LearnedOptimizer) -> None:
    """And gives what the transformation gives where it is called as it is, without a `jit` around it."""
    theta = perturbed_theta(learned, 0)
    init, update = program(learned)
    for num_steps in (3, 1_000):
        opt = learned.transform(theta, num_steps=num_steps)
        direct, _ = opt.update(ones(LIGHT), opt.init(LIGHT), LIGHT, value=jnp.float32(1.0))
        ours, _ = update(theta, num_steps, ones(LIGHT), init(theta, num_steps, LIGHT), LIGHT, 1.0)
        assert_close(ours, direct, rtol=1e-5, atol=1e-8)
    before = update._cache_size()
    update(theta, 17, ones(LIGHT), init(theta, 17, LIGHT), LIGHT, 1.0)
    assert update._cache_size() == before


def test_stays_finite_whatever_the_gradients(learned: LearnedOptimizer) -> None:
    theta = perturbed_theta(learned, 2)
    init, update = program(learned)
    for size in (0.0, 1e-20, 1e5, 1e20):
        params, state = PARAMS, init(theta, 6, PARAMS)
        for i in range(6):
            grads = jax.tree.map(lambda p, i=i, size=size: (p - 0.1 * i) * size, PARAMS)
            updates, state = update(theta, 6, grads, state, params, size)
            params = optax.apply_updates(params, updates)
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(params)), size


def test_unknown_extra_arguments_are_ignored(learned: LearnedOptimizer) -> None:
    """The very same program comes of it."""
    opt = learned.transform(initial_theta(learned), num_steps=5)
    state = opt.init(LIGHT)
    traced = lambda **extra: jax.jit(
        lambda grads, state: opt.update(grads, state, LIGHT, value=jnp.float32(1.0), **extra)
    ).lower(ones(LIGHT), state)
    assert traced(aux={"seen": 3}).as_text() == traced().as_text()


def test_missing_loss_names_the_fix_where_the_loss_is_read(learned: LearnedOptimizer) -> None:
    theta = perturbed_theta(learned, 4)
    opt = learned.transform(theta, num_steps=5)
    state = opt.init(LIGHT)
    if learned.reads_loss:
        with pytest.raises(ValueError, match="value=loss"):
            opt.update(ones(LIGHT), state, LIGHT)
        return
    without = jax.jit(lambda grads, state: opt.update(grads, state, LIGHT))(ones(LIGHT), state)
    with_loss = jax.jit(lambda grads, state, loss: opt.update(grads, state, LIGHT, value=loss))
    for loss in (0.0, 1e9, jnp.nan):
        assert_equal(with_loss(ones(LIGHT), state, jnp.float32(loss)), without)


def test_works_in_a_chain(learned: LearnedOptimizer) -> None:
    inner = learned.transform(initial_theta(learned), num_steps=5)
    opt = optax.chain(optax.clip_by_global_norm(1.0), inner)
    updates, _ = opt.update(ones(LIGHT), opt.init(LIGHT), LIGHT, value=jnp.float32(1.0))
    assert float(jnp.max(jnp.abs(updates["matrix"]))) > 0
