"""What every architecture owes its users; a newly registered one is tested the day it is registered."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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
    return ARCHITECTURES[request.param]().build()


def perturbed_theta(learned: LearnedOptimizer, seed: int) -> Any:
    theta = learned.init_theta(jax.random.key(0))
    leaves, treedef = jax.tree.flatten(theta)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return treedef.unflatten(
        [x + 0.05 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    )


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
    opt = learned.transform(learned.init_theta(jax.random.key(0)), num_steps=5)
    updates, state = opt.update(ones(params), opt.init(params), params, value=jnp.float32(1.0))
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert describe(updates) == describe(params)
    assert describe(state) == describe(opt.init(params))


def test_scan_equals_loop(learned: LearnedOptimizer) -> None:
    opt = learned.transform(perturbed_theta(learned, 1), num_steps=4)

    def step(carry: Any, i: jax.Array) -> tuple[Any, None]:
        params, state = carry
        grads = jax.tree.map(lambda p: p + 0.1 * i, params)
        updates, state = opt.update(grads, state, params, value=1.0 / (1.0 + i))
        return (optax.apply_updates(params, updates), state), None

    start = (LIGHT, opt.init(LIGHT))
    (scanned, _), _ = jax.lax.scan(step, start, jnp.arange(4, dtype=jnp.float32))
    looped = start
    for i in range(4):
        looped, _ = step(looped, jnp.float32(i))
    for a, b in zip(jax.tree.leaves(scanned), jax.tree.leaves(looped[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_vmap_over_theta_equals_loop(learned: LearnedOptimizer) -> None:
    thetas = [perturbed_theta(learned, seed) for seed in range(3)]

    def one(theta: Any) -> Any:
        opt = learned.transform(theta, num_steps=7)
        state = opt.init(LIGHT)
        _, state = opt.update(ones(LIGHT), state, LIGHT, value=jnp.float32(2.0))
        return opt.update(jax.tree.map(lambda p: p - 0.3, LIGHT), state, LIGHT, value=jnp.float32(1.0))[0]

    batched = jax.vmap(one)(jax.tree.map(lambda *x: jnp.stack(x), *thetas))
    for i, theta in enumerate(thetas):
        for a, b in zip(jax.tree.leaves(one(theta)), jax.tree.leaves(batched), strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-4, atol=1e-6)


def test_one_program_serves_every_horizon(learned: LearnedOptimizer) -> None:
    theta = perturbed_theta(learned, 0)
    traces = 0

    @jax.jit
    def first_update(num_steps: jax.Array) -> Any:
        nonlocal traces
        traces += 1
        opt = learned.transform(theta, num_steps=num_steps)
        return opt.update(ones(LIGHT), opt.init(LIGHT), LIGHT, value=jnp.float32(1.0))[0]["matrix"]

    for num_steps in (3, 1_000):
        opt = learned.transform(theta, num_steps=num_steps)
        direct = opt.update(ones(LIGHT), opt.init(LIGHT), LIGHT, value=jnp.float32(1.0))[0]["matrix"]
        np.testing.assert_allclose(first_update(jnp.int32(num_steps)), direct, rtol=1e-5, atol=1e-8)
    assert traces == 1


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e5, 1e20])
def test_stays_finite_whatever_the_gradients(learned: LearnedOptimizer, size: float) -> None:
    opt = learned.transform(perturbed_theta(learned, 2), num_steps=6)
    params, state = PARAMS, opt.init(PARAMS)
    for i in range(6):
        grads = jax.tree.map(lambda p, i=i: (p - 0.1 * i) * size, PARAMS)
        updates, state = opt.update(grads, state, params, value=jnp.float32(size))
        params = optax.apply_updates(params, updates)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(params))


def test_unknown_extra_arguments_are_ignored(learned: LearnedOptimizer) -> None:
    opt = learned.transform(learned.init_theta(jax.random.key(0)), num_steps=5)
    plain, _ = opt.update(ones(LIGHT), opt.init(LIGHT), LIGHT, value=jnp.float32(1.0))
    extra, _ = opt.update(ones(LIGHT), opt.init(LIGHT), LIGHT, value=jnp.float32(1.0), aux={"seen": 3})
    np.testing.assert_array_equal(plain["matrix"], extra["matrix"])


def test_missing_loss_names_the_fix_where_the_loss_is_read(learned: LearnedOptimizer) -> None:
    opt = learned.transform(perturbed_theta(learned, 4), num_steps=5)
    state = opt.init(LIGHT)
    if learned.reads_loss:
        with pytest.raises(ValueError, match="value=loss"):
            opt.update(ones(LIGHT), state, LIGHT)
        return
    without, after = opt.update(ones(LIGHT), state, LIGHT)
    for loss in (0.0, 1e9, jnp.nan):
        with_loss, after_with = opt.update(ones(LIGHT), state, LIGHT, value=jnp.float32(loss))
        for a, b in zip(*map(jax.tree.leaves, ((without, after), (with_loss, after_with))), strict=True):
            np.testing.assert_array_equal(a, b)


def test_works_in_a_chain_and_with_gradient_accumulation(learned: LearnedOptimizer) -> None:
    inner = learned.transform(learned.init_theta(jax.random.key(0)), num_steps=5)
    opt = optax.chain(optax.clip_by_global_norm(1.0), inner)
    updates, _ = opt.update(ones(LIGHT), opt.init(LIGHT), LIGHT, value=jnp.float32(1.0))
    assert float(jnp.max(jnp.abs(updates["matrix"]))) > 0
    params = {"w": LIGHT["matrix"]}
    with jax.numpy_dtype_promotion("standard"):  # optax.MultiSteps mixes int32 and float32 itself
        steps = optax.MultiSteps(inner, every_k_schedule=2)
        state = steps.init(params)
        first, state = steps.update(ones(params), state, params, value=jnp.float32(1.0))
        second, state = steps.update(ones(params), state, params, value=jnp.float32(1.0))
    assert float(jnp.max(jnp.abs(first["w"]))) == 0.0
    assert float(jnp.max(jnp.abs(second["w"]))) > 0.0
