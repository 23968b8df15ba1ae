"""Every architecture inside optax's own wrappers, and on every kind of parameter tree."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import (
    NAMES,
    assert_close,
    assert_equal,
    fast_for,
    initial_theta,
    moved,
    perturbed_theta,
    small,
)

from lopt.types import LearnedOptimizer

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "b": jnp.asarray([0.3, -0.2])}
STEPS = 2


def gradients(params: Any, step: int) -> Any:
    return jax.tree.map(lambda p: p.astype(jnp.float32) * (1.0 + step) + 0.2, params)


def losses() -> list[jax.Array]:
    return [jnp.float32(2.0 - 0.5 * step) for step in range(STEPS)]


def run(opt: Any, params: Any) -> tuple[Any, Any, Any]:
    """Returns parameters, state and last updates after `STEPS` compiled updates."""
    state = opt.init(params)
    update = jax.jit(opt.update)
    for step, loss in enumerate(losses()):
        updates, state = update(gradients(params, step), state, params, value=loss)
        params = optax.apply_updates(params, updates)
    return params, state, updates


@functools.cache
def alone(name: str) -> tuple[LearnedOptimizer, Any, Any]:
    """Returns the architecture, its weights, and where it takes `PARAMS` by itself."""
    learned = small(name)
    theta = perturbed_theta(learned)
    return learned, theta, run(learned.transform(theta, num_steps=5), PARAMS)[0]


@pytest.mark.parametrize("name", fast_for("pacer", "velo"))
def test_masked_moves_what_it_sees_and_nothing_else(name: str) -> None:
    learned, theta, expected = alone(name)
    opt = learned.transform(theta, num_steps=5)
    masked = optax.masked(optax.with_extra_args_support(opt), {"w": True, "b": True, "frozen": False})
    params, _, updates = run(masked, {**PARAMS, "frozen": jnp.ones((2, 2))})
    assert_close({"w": params["w"], "b": params["b"]}, expected)
    np.testing.assert_allclose(
        updates["frozen"], np.full((2, 2), 4.6), rtol=1e-6
    )  # its gradient, as optax does
    assert moved(PARAMS, expected) > 0


@pytest.mark.parametrize("name", fast_for("pacer"))
def test_multi_transform_and_chain_with_other_optimizers(name: str) -> None:
    learned, theta, expected = alone(name)
    opt = learned.transform(theta, num_steps=5)
    both = optax.chain(
        optax.identity(),
        optax.multi_transform(
            {"learned": opt, "sgd": optax.sgd(0.1)}, {"w": "learned", "b": "learned", "plain": "sgd"}
        ),
        optax.scale(1.0),
    )
    params, state, _ = run(both, {**PARAMS, "plain": jnp.ones(2)})
    assert_close({"w": params["w"], "b": params["b"]}, expected)
    plain = jnp.ones(2)
    for step in range(STEPS):
        plain = plain - 0.1 * gradients(plain, step)
    np.testing.assert_allclose(params["plain"], plain, rtol=1e-6)
    assert jax.tree.structure(state) == jax.tree.structure(both.init({**PARAMS, "plain": jnp.ones(2)}))


@pytest.mark.parametrize("name", fast_for("pacer", "velo"))
def test_multi_steps_is_the_run_on_mean_gradients(name: str) -> None:
    learned, theta, expected = alone(name)
    with jax.numpy_dtype_promotion("standard"):  # optax.MultiSteps mixes int32 and float32 itself
        steps = optax.MultiSteps(learned.transform(theta, num_steps=5), every_k_schedule=2)
        params, state, update = PARAMS, steps.init(PARAMS), jax.jit(steps.update)
        for step, loss in enumerate(losses()):
            for sign in (-1.0, 1.0):
                grads = jax.tree.map(lambda g, sign=sign: g * (1.0 + 0.5 * sign), gradients(params, step))
                updates, state = update(grads, state, params, value=loss)
                if sign < 0:
                    assert moved(updates, jax.tree.map(jnp.zeros_like, updates)) == 0.0
            params = optax.apply_updates(params, updates)
    assert_close(params, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", fast_for("pacer", "velo"))
def test_an_ensemble_is_a_vmap_and_a_run_is_a_scan(name: str) -> None:
    learned, theta, expected = alone(name)
    opt = learned.transform(theta, num_steps=5)

    def train(params: Any) -> Any:
        def body(carry: Any, step: jax.Array) -> Any:
            params, state = carry
            grads = jax.tree.map(lambda p: p * (1.0 + step) + 0.2, params)
            updates, state = opt.update(grads, state, params, value=2.0 - 0.5 * step)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, opt.init(params)), jnp.arange(float(STEPS)))[0][0]

    members = jax.tree.map(lambda p: jnp.stack([p, 2.0 * p]), PARAMS)
    trained = jax.jit(jax.vmap(train))(members)
    assert_close(jax.tree.map(lambda x: x[0], trained), expected, rtol=1e-4, atol=1e-6)
    second = jax.tree.map(lambda x: x[1], trained)
    assert moved(second, expected) > 1e-3


class Layer(NamedTuple):
    kernel: jax.Array
    gain: jax.Array


@pytest.mark.parametrize("name", fast_for("pacer"))
def test_trees_of_every_kind_and_tensors_of_every_rank(name: str) -> None:
    """Lists, tuples, NamedTuples and None; ranks 0 to 6; empty tensors; leaves that are all there is."""
    learned, theta, _ = alone(name)
    opt = learned.transform(theta, num_steps=5)
    shapes = [(), (2,), (2, 3), (2, 1, 3), (1, 2, 1, 2), (2, 1, 2, 1, 2), (1, 2, 1, 2, 1, 2), (0,), (3, 0)]
    arrays = [0.1 + jnp.arange(float(np.prod(shape))).reshape(shape) for shape in shapes]
    params = [tuple(arrays[:4]), {"deep": Layer(arrays[4], arrays[5]), "nothing": None}, arrays[6:], {}]
    moving, _, updates = run(opt, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(moving), strict=True):
        assert np.all(np.isfinite(after))
        assert before.size == 0 or moved([before], [after]) > 0, before.shape


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_optimize_is_no_error(name: str) -> None:
    learned = small(name)
    opt = learned.transform(initial_theta(learned), num_steps=5)
    for params in ({}, {"empty": jnp.zeros((0, 2))}):
        updates, state = opt.update(params, opt.init(params), params, value=jnp.float32(1.0))
        assert_equal(updates, params)
        assert jax.tree.structure(state) == jax.tree.structure(opt.init(params))


@pytest.mark.parametrize("name", fast_for("pacer", "velo"))
def test_bfloat16_parameters_have_float32_accumulators(name: str) -> None:
    """Updates come in the parameters' dtype; what is accumulated is as precise as for float32 parameters."""
    learned, theta, _ = alone(name)
    opt = learned.transform(theta, num_steps=5)
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    whole = jax.tree.map(lambda p: p.astype(jnp.float32), half)
    state, state_whole = opt.init(half), opt.init(whole)
    assert all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves(state))
    grads = jax.tree.map(lambda p: (p * 0.5 + 0.25).astype(jnp.bfloat16), half)
    wide = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
    updates, state = jax.jit(opt.update)(grads, state, half, value=jnp.bfloat16(1.0))
    updates_whole, state_whole = jax.jit(opt.update)(wide, state_whole, whole, value=jnp.float32(1.0))
    assert jax.tree.map(lambda u: u.dtype, updates) == jax.tree.map(lambda p: p.dtype, half)
    assert_close(updates, updates_whole, rtol=2.0**-7, atol=1e-9)
    assert_close(state, state_whole, rtol=1e-5, atol=1e-7)
