"""Schedule-free AdamW, Muon and the learning-rate-free baselines: what only they promise."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lopt.baselines import BASELINES


def test_schedule_free_evaluates_the_average_of_its_formula() -> None:
    """z ← z − η d, x ← (1 − c) x + c z, y = 0.9 x + 0.1 z; c weighs by the square of the largest rate so far."""
    rate, num_steps = 0.1, 100  # warm-up over 5 updates
    baseline = BASELINES["schedule_free_adamw"]
    optimizer = baseline.factory(jnp.float32(rate), jnp.int32(num_steps))
    rng = np.random.default_rng(0)
    x = z = y = rng.normal(size=4)
    v, total = np.zeros(4), 0.0
    params = {"w": jnp.asarray(y, jnp.float32)}
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        update = jax.jit(optimizer.update)
        for t in range(1, 9):
            g = rng.normal(size=4)
            updates, state = update({"w": jnp.asarray(g, jnp.float32)}, state, params)
            params = optax.apply_updates(params, updates)
            v = 0.999 * v + 0.001 * g**2
            z = z - rate * min(t / 5, 1) * (g / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 1e-4 * y)
            weight = (rate * min((t + 1) / 5, 1)) ** 2  # optax counts its weights from the second step
            total += weight
            x = x + weight / total * (z - x)
            y = 0.9 * x + 0.1 * z
            np.testing.assert_allclose(params["w"], y, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(baseline.eval_params(state, params)["w"], x, rtol=1e-4, atol=1e-6)


def test_evaluating_schedule_free_where_it_trains_makes_it_look_worse() -> None:
    baseline = BASELINES["schedule_free_adamw"]
    optimizer = baseline.factory(jnp.float32(0.1), jnp.int32(400))

    def step(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        grads = {"w": params["w"] + jax.random.normal(key, (50,))}  # of ½‖w‖² and noise
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = {"w": jnp.ones(50)}
    keys = jax.random.split(jax.random.key(0), 400)
    with jax.numpy_dtype_promotion("standard"):
        (params, state), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))(
            (params, optimizer.init(params))
        )
    loss = lambda p: float(0.5 * jnp.sum(jnp.square(p["w"])))
    assert loss(baseline.eval_params(state, params)) < 0.9 * loss(params)


def test_muon_takes_a_kernel_for_its_matrix_and_a_bias_for_adamw() -> None:
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(2, 2, 3, 6)), jnp.float32)
    bias = jnp.asarray(rng.normal(size=6), jnp.float32)
    optimizer = BASELINES["muon"].factory(jnp.float32(0.1), jnp.int32(100))
    adamw = optax.nadamw(0.1, weight_decay=1e-4)  # what optax's Muon means by Adam
    with jax.numpy_dtype_promotion("standard"):
        params = {"kernel": kernel, "matrix": kernel.reshape(12, 6), "bias": bias}
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        expected, _ = adamw.update(bias, adamw.init(bias), bias)
    np.testing.assert_allclose(updates["kernel"].reshape(12, 6), updates["matrix"], rtol=1e-5)
    np.testing.assert_allclose(updates["bias"], expected, rtol=1e-5)
    singular = np.linalg.svd(np.asarray(updates["matrix"]), compute_uv=False)
    assert singular.max() / singular.min() < 2.0  # the gradient's: 3.3
    size = float(jnp.sqrt(jnp.mean(jnp.square(updates["matrix"]))))
    assert size == pytest.approx(0.1 * 0.2, rel=0.3)  # Newton-Schulz leaves singular values in 0.7 … 1.2


def update_sizes(name: str, num_steps: int) -> list[float]:
    """Returns the largest entry of each of the first six updates of ½‖w‖²."""
    optimizer = BASELINES[name].factory(jnp.float32(1.0), jnp.int32(num_steps))
    params = {"w": jnp.asarray([1.0, -2.0, 3.0])}
    sizes = []
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        update = jax.jit(optimizer.update)
        for _ in range(6):
            updates, state = update(params, state, params)
            params = optax.apply_updates(params, updates)
            sizes.append(float(jnp.max(jnp.abs(updates["w"]))))
    return sizes


@pytest.mark.parametrize("name", ["prodigy", "dadapt_adamw", "mechanic_adamw"])
def test_found_rates_fall_along_the_run(name: str) -> None:
    short, long = update_sizes(name, 5), update_sizes(name, 1_000_000)
    assert short[0] == pytest.approx(long[0], rel=1e-4)  # both begin at the full rate
    assert short[3] < 0.9 * long[3]


def test_prodigy_ends_at_a_rate_of_zero() -> None:
    sizes = update_sizes("prodigy", 5)
    assert sizes[4] > 0.0
    assert sizes[5] == 0.0


@pytest.mark.parametrize("name", ["prodigy", "dadapt_adamw"])
def test_a_step_without_gradients_changes_nothing(name: str) -> None:
    optimizer = BASELINES[name].factory(jnp.float32(1.0), jnp.int32(50))
    params = {"w": jnp.asarray([1.0, -2.0, 3.0])}
    zeros = jax.tree.map(jnp.zeros_like, params)
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        updates, held = optimizer.update(zeros, state, params)
        assert float(jnp.max(jnp.abs(updates["w"]))) == 0.0
        for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(held), strict=True):
            np.testing.assert_array_equal(before, after)
        bare = {"prodigy": optax.contrib.prodigy, "dadapt_adamw": optax.contrib.dadapt_adamw}[name]()
        _, poisoned = bare.update(zeros, bare.init(params), params)
    assert bool(jnp.isnan(poisoned.estim_lr))  # why the baseline is not optax's alone


def test_dog_by_hand() -> None:
    """x₀ = (3, 4), g = (0, 2): the first rate is 1e-6 · (1 + 5) / 2, the next, nothing having moved, 6e-6 / √8."""
    optimizer = BASELINES["dog"].factory(jnp.float32(1.0), jnp.int32(10))
    params = {"w": jnp.asarray([3.0, 4.0])}
    grads = {"w": jnp.asarray([0.0, 2.0])}
    first, state = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(first["w"], [0.0, -6e-6], rtol=1e-4)
    second, _ = optimizer.update(grads, state, params)
    np.testing.assert_allclose(second["w"], [0.0, -2 * 6e-6 / np.sqrt(8.0)], rtol=1e-4)


def test_momo_by_hand() -> None:
    """½x² at x = 2: Polyak's rate is 2/2² = ½, below the cap of 1; the step is −½ · 2."""
    optimizer = BASELINES["momo"].factory(jnp.float32(1.0), jnp.int32(10))
    params = {"x": jnp.float32(2.0)}
    updates, _ = optimizer.update(params, optimizer.init(params), params, value=jnp.float32(2.0))
    assert float(updates["x"]) == pytest.approx(-1.0)


@pytest.mark.parametrize("name", ["momo", "momo_adam"])
def test_momo_without_the_loss_names_the_fix(name: str) -> None:
    optimizer = BASELINES[name].factory(jnp.float32(1.0), jnp.int32(10))
    params = {"x": jnp.float32(2.0)}
    with pytest.raises(ValueError, match=f"{name} reads the loss: call .*value=loss"):
        optimizer.update(params, optimizer.init(params), params)


def test_cocob_by_hand() -> None:
    """First step of g = 2: L = G = 2, reward 0, θ = −2, so x moves by −2/(2 · max(2 + 2, 100 · 2)) · 2 = −0.01."""
    optimizer = BASELINES["cocob"].factory(jnp.float32(1.0), jnp.int32(10))
    params = {"x": jnp.asarray([3.0])}
    updates, _ = optimizer.update({"x": jnp.asarray([2.0])}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["x"], [-0.01], rtol=1e-4)
