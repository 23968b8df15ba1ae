"""`ciao` as a learned optimizer: theta, the schedule, and what differentiating through it gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ciao_reference import gradients, single, start, values
from pydantic import ValidationError

from lopt.architectures.ciao import Ciao, CiaoConfig
from lopt.registry import UnknownNameError


def test_theta_starts_at_the_configured_values() -> None:
    config = CiaoConfig(learning_rate=3e-4, clip_fraction=0.35, one_minus_beta2=2e-3, weight_decay=0.7)
    learned = config.build()
    theta = learned.init_theta(jax.random.key(0))
    assert sorted(theta) == sorted(
        ["log_learning_rate", "log_weight_decay", "log_epsilon", "logit_clip_fraction"]
        + [f"logit_one_minus_beta{suffix}" for suffix in ("1", "2", "_clip", "_trust")]
    )  # the eight that the paper's Table 8 acts on
    assert {(x.shape, x.dtype) for x in theta.values()} == {((), jnp.dtype("float32"))}
    for name, value in learned.hyperparameters(theta)._asdict().items():
        np.testing.assert_allclose(value, values(config)[name], rtol=2e-6, err_msg=name)
    np.testing.assert_allclose(theta["logit_clip_fraction"], math.log(0.35 / 0.65), rtol=1e-6)


def test_what_is_not_learned_stays_as_configured() -> None:
    learned = CiaoConfig(learned=("epsilon",), weight_decay=0.0, clip_fraction=1.0).build()
    theta = learned.init_theta(jax.random.key(0))
    assert list(theta) == ["log_epsilon"]
    assert float(learned.hyperparameters(theta).clip_fraction) == 1.0
    np.testing.assert_allclose(
        learned.hyperparameters({"log_epsilon": jnp.float32(-2)}).epsilon, math.exp(-2)
    )


def test_configurations_that_cannot_be_learned_are_refused() -> None:
    with pytest.raises(ValidationError, match="leave 'weight_decay' out of `learned`"):
        CiaoConfig(weight_decay=0.0)
    with pytest.raises(ValidationError, match="strictly between 0 and 1"):
        CiaoConfig(clip_fraction=1.0)
    with pytest.raises(UnknownNameError, match="Did you mean 'epsilon'"):
        CiaoConfig(learned=("epsilom",))
    with pytest.raises(ValueError, match="`num_steps` must be the number of updates"):
        CiaoConfig(learned=()).build().transform({}, num_steps=0)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_learning_rate_follows_the_schedule(schedule: Any) -> None:
    learned = CiaoConfig(schedule=schedule, learning_rate=0.02).build()
    opt = learned.transform(learned.init_theta(jax.random.key(0)), num_steps=8)
    params, state, update = single(start()), opt.init(single(start())), jax.jit(opt.update)
    for step in range(8):
        _, state = update(gradients(step), state, params)
        factor = 0.5 * (1 + math.cos(math.pi * step / 8)) if schedule == "cosine" else 1.0
        np.testing.assert_allclose(state.hyperparameters.learning_rate, 0.02 * factor, rtol=1e-4)


def squared_length(learned: Ciao) -> Callable[[Any, jax.Array], jax.Array]:
    """Compiled: (theta, scale of the gradients) → Σ φ² after four updates."""

    def run(theta: Any, scale: jax.Array) -> jax.Array:
        opt = learned.transform(theta, num_steps=5)
        params = single(start())

        def body(carry: Any, grads: Any) -> tuple[Any, None]:
            updates, state = opt.update(jax.tree.map(lambda g: scale * g, grads), carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        steps = jax.tree.map(lambda *g: jnp.stack(g), *(gradients(step) for step in range(4)))
        (params, _), _ = jax.lax.scan(body, (params, opt.init(params)), steps)
        return sum((jnp.sum(jnp.square(p)) for p in jax.tree.leaves(params)), jnp.float32(0.0))

    return jax.jit(run)


@pytest.mark.parametrize("denominator", ["adamax", pytest.param("adam", marks=pytest.mark.slow)])
def test_gradient_in_theta_is_finite(denominator: Any) -> None:
    learned = CiaoConfig(denominator=denominator).build()
    theta = learned.init_theta(jax.random.key(0))
    slope = jax.jit(jax.grad(squared_length(learned)))
    for scale in (0.0, 1e-20, 1.0, 1e5, 1e20):
        found = slope(theta, jnp.float32(scale))
        assert all(bool(jnp.isfinite(g)) for g in found.values()), (scale, found)


def test_gradient_in_theta_is_the_slope() -> None:
    learned = CiaoConfig(learning_rate=0.1, weight_decay=0.3, denominator="adam").build()
    theta, one = learned.init_theta(jax.random.key(0)), jnp.float32(1.0)
    at = squared_length(learned)
    slope = jax.grad(at)(theta, one)
    for name in theta:
        high, low = (at({**theta, name: theta[name] + d}, one) for d in (0.05, -0.05))
        np.testing.assert_allclose(slope[name], (high - low) / 0.1, rtol=0.02, atol=5e-6, err_msg=name)
    for name in ("log_learning_rate", "log_weight_decay", "logit_one_minus_beta2", "logit_clip_fraction"):
        assert abs(float(slope[name])) > 3e-5, name


def test_some_hyperparameters_may_be_given() -> None:
    learned = CiaoConfig().build()
    opt = learned.transform(learned.init_theta(jax.random.key(0)), num_steps=10)
    params = single(start())
    state = opt.init(params)
    plain, _ = opt.update(gradients(0), state, params)
    doubled, after = opt.update(gradients(0), state, params, hyperparameters={"learning_rate": 2e-3})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(2 * a, b, rtol=1e-5), plain, doubled)
    assert float(after.hyperparameters.learning_rate) == np.float32(2e-3)
    _, after = opt.update(gradients(1), after, params)  # for that step only: then the schedule goes on
    np.testing.assert_allclose(
        after.hyperparameters.learning_rate, 1e-3 * 0.5 * (1 + math.cos(math.pi * 0.1)), rtol=1e-5
    )


def test_empty_trees_and_donated_states_work() -> None:
    learned = CiaoConfig().build()
    opt = learned.transform(learned.init_theta(jax.random.key(0)), num_steps=3)
    updates, state = opt.update({}, opt.init({}), {})
    assert updates == {}
    assert int(state.progress) == 1
    params = single(start())
    donating = jax.jit(lambda state, grads: opt.update(grads, state, params)[1], donate_argnums=0)
    assert int(donating(opt.init(params), gradients(0)).progress) == 1
