"""The component-wise LSTM against float64, and what follows from seeing one gradient at a time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from lopt.architectures.component_lstm import ComponentLstmConfig
from lopt.features.log_and_sign import log_and_sign

KEY = jax.random.key(0)
OUTPUTS = ("update", "direction_and_magnitude")


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def reference(theta: Any, gradients: np.ndarray, *, output: str, log_range: float = 10.0) -> np.ndarray:
    """Returns the updates [steps, n] of parameters that see gradients [steps, n], in float64."""
    theta = jax.tree.map(lambda x: np.asarray(x, np.float64), theta)
    size = theta["output"]["w"].shape[0]
    states = [[np.zeros((gradients.shape[1], size))] * 2 for _ in theta["layers"]]
    updates = []
    for g in np.asarray(gradients, np.float64):
        large = np.abs(g) >= np.exp(-log_range)
        safe = np.where(large, np.abs(g), 1.0)
        x = np.stack(
            [
                np.where(large, np.log(safe) / log_range, -1.0),
                np.where(large, np.sign(g), np.exp(log_range) * g),
            ],
            axis=1,
        )
        for layer, weights in enumerate(theta["layers"]):
            hidden, cell = states[layer]
            i, c, f, o = np.split(np.concatenate([x, hidden], 1) @ weights["w"] + weights["b"], 4, axis=1)
            cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(c)
            x = sigmoid(o) * np.tanh(cell)
            states[layer] = [x, cell]
        out = x @ theta["output"]["w"] + theta["output"]["b"]
        updates.append(
            0.01 * out[:, 0] if output == "update" else np.exp(1e-3 * out[:, 0]) * 1e-3 * out[:, 1]
        )
    return np.stack(updates)


def ours(config: ComponentLstmConfig, theta: Any, gradients: list[Any]) -> list[Any]:
    optimizer = config.build().transform(theta, num_steps=10)
    params = jax.tree.map(jnp.zeros_like, gradients[0])
    state, updates = optimizer.init(params), []
    step = jax.jit(optimizer.update)
    for grads in gradients:
        change, state = step(grads, state, params)
        updates.append(change)
    return updates


@pytest.mark.parametrize("output", OUTPUTS)
def test_updates_follow_the_formula(output: Any) -> None:
    config = ComponentLstmConfig(output=output)
    theta = jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(KEY, x.shape), config.build().init_theta(jax.random.key(1))
    )
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(5, 9)) * 10.0 ** rng.integers(-7, 6, size=(5, 9))
    gradients[2] = 0.0  # exactly zero
    gradients[3, :3] = 1e5
    trees = [
        {"m": jnp.asarray(g[:6].reshape(2, 3), jnp.float32), "v": jnp.asarray(g[6:], jnp.float32)}
        for g in gradients
    ]
    expected = reference(theta, gradients, output=output)
    scale = np.abs(expected).max()
    for update, want in zip(ours(config, theta, trees), expected, strict=True):
        flat = np.concatenate([np.ravel(update["m"]), update["v"]])
        np.testing.assert_allclose(flat, want, rtol=1e-4, atol=1e-5 * scale)


def test_a_large_tensor_in_pieces_gets_what_its_parameters_get_alone() -> None:
    config = ComponentLstmConfig(hidden_size=4)
    theta = config.build().init_theta(KEY)
    gradients = np.asarray(jax.random.normal(KEY, (3, 20_000)))
    updates = ours(config, theta, [{"w": jnp.asarray(g.reshape(100, 200))} for g in gradients])
    want = reference(theta, gradients, output="update")
    np.testing.assert_allclose(updates[-1]["w"].ravel(), want[-1], rtol=1e-4, atol=1e-7)


def test_a_parameter_is_treated_alike_wherever_it_is() -> None:
    config = ComponentLstmConfig()
    theta = config.build().init_theta(KEY)
    g = jax.random.normal(KEY, (6,))
    (one,) = ours(config, theta, [{"w": g.reshape(2, 3)}])
    (other,) = ours(config, theta, [{"w": g[::-1], "s": g[0]}])
    np.testing.assert_allclose(one["w"].ravel(), other["w"][::-1], rtol=1e-6)
    np.testing.assert_allclose(one["w"][0, 0], other["s"], rtol=1e-6)


def test_direction_and_magnitude_of_a_network_that_says_constants() -> None:
    config = ComponentLstmConfig(output="direction_and_magnitude", temperature=0.1)
    theta = jax.tree.map(jnp.zeros_like, config.build().init_theta(KEY))
    theta["output"]["b"] = jnp.asarray([2.0, -3.0])
    (update,) = ours(config, theta, [{"w": jnp.ones((2,))}])
    np.testing.assert_allclose(update["w"], np.full(2, np.exp(0.2) * -0.3), rtol=1e-6)


def test_sizes_are_the_papers() -> None:
    def count(config: ComponentLstmConfig) -> int:
        return sum(x.size for x in jax.tree.leaves(config.build().init_theta(KEY)))

    # Layers of 20 on 2 and on 20 inputs: (2 + 20)·80 + 80, (20 + 20)·80 + 80; outputs of 21 each.
    assert count(ComponentLstmConfig()) == 1840 + 3280 + 21
    assert count(ComponentLstmConfig(output="direction_and_magnitude")) == 1840 + 3280 + 42
    state = (
        ComponentLstmConfig()
        .build()
        .transform(ComponentLstmConfig().build().init_theta(KEY), num_steps=3)
        .init(jnp.ones((4, 5)))
    )
    assert sum(x.size for x in jax.tree.leaves(state.stacks)) == 80 * 20
    with pytest.raises(ValidationError, match="direction_and_magnitude"):
        ComponentLstmConfig(output="magnitude")  # type: ignore[arg-type]


def test_log_and_sign_of_gradients_of_every_size() -> None:
    g = jnp.asarray([1.0, -1.0, np.exp(5.0), -np.exp(-10.0), np.exp(-11.0), 0.0, 1e-30, 1e30])
    logarithm, sign = log_and_sign(g, 10.0)
    np.testing.assert_allclose(
        logarithm, [0.0, 0.0, 0.5, -1.0, -1.0, -1.0, -1.0, np.log(1e30) / 10], atol=1e-6
    )
    np.testing.assert_allclose(
        sign, [1.0, -1.0, 1.0, -1.0, np.exp(-1.0), 0.0, 1e-30 * np.exp(10.0), 1.0], rtol=1e-4
    )


def test_donated_states_and_empty_trees_work() -> None:
    config = ComponentLstmConfig(hidden_size=2)
    optimizer = config.build().transform(config.build().init_theta(KEY), num_steps=3)
    params = {"w": jnp.ones((3,))}
    step = jax.jit(optimizer.update, donate_argnums=1)
    _, state = step(params, optimizer.init(params), params)
    step(params, state, params)
    assert optimizer.update({}, optimizer.init({}), {})[0] == {}
