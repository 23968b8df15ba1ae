"""Layers and recurrent cells against their formulas in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt import nn

KEY = jax.random.key(0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def draws(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def float64(x: jax.Array) -> np.ndarray:
    return np.asarray(x, np.float64)


def test_linear_is_affine_on_the_last_axis_and_on_the_first() -> None:
    weights = {"w": draws(1, 4, 3), "b": draws(2, 3)}
    x = draws(3, 2, 5, 4)
    expected = float64(x) @ float64(weights["w"]) + float64(weights["b"])
    np.testing.assert_allclose(nn.linear(weights, x), expected, rtol=1e-5, atol=1e-6)
    first = nn.linear_features_first(weights, jnp.moveaxis(x, -1, 0))
    np.testing.assert_allclose(first, np.moveaxis(expected, -1, 0), rtol=1e-5, atol=1e-6)


def test_mlp_of_separate_arrays_is_the_same_network() -> None:
    weights = nn.init_mlp(KEY, (3, 8, 8, 2), zero_output=False)
    weights = {name: w + 0.1 for name, w in weights.items()}  # biases that do something
    x = draws(4, 7, 3)
    outputs = jnp.stack(nn.mlp_of_arrays(weights, list(x.T)), axis=-1)
    np.testing.assert_allclose(nn.mlp(weights, x), outputs, rtol=1e-5, atol=1e-6)


def test_truncated_normal_is_cut_at_two_deviations() -> None:
    x = np.asarray(nn.truncated_normal(KEY, (200, 200), 0.5))
    assert np.max(np.abs(x)) <= 1.0
    assert np.std(x) == pytest.approx(0.5 * 0.8796, rel=0.02)  # the deviation of a normal cut at ±2
    linear = nn.init_linear(KEY, 400, 300)
    assert np.std(linear["w"]) == pytest.approx(0.8796 / 20, rel=0.02)
    assert not np.any(linear["b"])


def test_lstm_cell_follows_its_formula() -> None:
    weights = nn.init_lstm(KEY, 3, 5)
    assert {name: w.shape for name, w in weights.items()} == {"w": (8, 20), "b": (20,)}
    weights = {**weights, "b": draws(7, 20)}
    x, state = draws(5, 2, 3), nn.LstmState(draws(6, 2, 5), draws(8, 2, 5))
    after = nn.lstm_cell(weights, x, state)
    gates = np.concatenate([x, state.hidden], axis=1).astype(np.float64) @ float64(weights["w"])
    i, g, f, o = np.split(gates + float64(weights["b"]), 4, axis=1)
    cell = sigmoid(f + 1.0) * float64(state.cell) + sigmoid(i) * np.tanh(g)
    np.testing.assert_allclose(after.cell, cell, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.hidden, sigmoid(o) * np.tanh(cell), rtol=1e-5, atol=1e-6)
    first = nn.lstm_cell_features_first(weights, x.T, nn.LstmState(state.hidden.T, state.cell.T))
    np.testing.assert_allclose(first.hidden.T, after.hidden, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first.cell.T, after.cell, rtol=1e-5, atol=1e-6)


def test_lstm_cell_keeps_its_cell_when_the_forget_gate_is_open_and_the_input_gate_shut() -> None:
    weights = {"w": jnp.zeros((4, 8)), "b": jnp.asarray([-99.0] * 2 + [0.0] * 2 + [98.0] * 2 + [99.0] * 2)}
    state = nn.LstmState(jnp.zeros((2,)), jnp.asarray([0.3, -2.0]))
    after = nn.lstm_cell(weights, jnp.ones((2,)), state)
    np.testing.assert_array_equal(after.cell, state.cell)
    np.testing.assert_allclose(after.hidden, np.tanh([0.3, -2.0]), rtol=1e-6)


def test_gru_cell_follows_its_formula_with_and_without_a_bias_from_outside() -> None:
    weights = {**nn.init_gru(KEY, 3, 4), "b": draws(9, 12)}
    x, hidden, bias = draws(10, 2, 3), draws(11, 2, 4), draws(12, 2, 12)
    w, b, h = float64(weights["w"]), float64(weights["b"]), float64(hidden)
    for extra in (None, bias):
        outside = 0.0 if extra is None else float64(extra)
        gates = np.concatenate([float64(x), h], axis=1) @ w[:, :8] + (b + outside)[..., :8]
        reset, update = sigmoid(gates[:, :4]), sigmoid(gates[:, 4:])
        candidate = np.tanh(
            np.concatenate([float64(x), reset * h], axis=1) @ w[:, 8:] + (b + outside)[..., 8:]
        )
        expected = update * h + (1.0 - update) * candidate
        np.testing.assert_allclose(nn.gru_cell(weights, x, hidden, extra), expected, rtol=1e-5, atol=1e-6)
        first = nn.gru_cell_features_first(weights, x.T, hidden.T, None if extra is None else extra.T)
        np.testing.assert_allclose(first.T, expected, rtol=1e-5, atol=1e-6)


def test_gru_starts_by_keeping_its_state_where_the_gates_start_open() -> None:
    weights = nn.init_gru(KEY, 2, 3, scale=0.0, gate_bias=50.0)
    hidden = draws(13, 3)
    np.testing.assert_array_equal(nn.gru_cell(weights, jnp.ones((2,)), hidden), hidden)
    assert np.std(nn.init_gru(KEY, 300, 100, scale=0.5)["w"]) == pytest.approx(0.5 / 20, rel=0.02)


def test_a_network_of_no_units_adds_nothing() -> None:
    weights = nn.init_gru(KEY, 3, 0)
    assert nn.gru_cell(weights, jnp.ones((2, 3)), jnp.zeros((2, 0))).shape == (2, 0)
