"""Weights files: what is written comes back, what is damaged says so, and what ships works."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import fast_for

import lopt
from lopt import shipped
from lopt.architectures.pacer import PacerConfig


def test_a_file_gives_back_configuration_and_theta(tmp_path: Path) -> None:
    config = PacerConfig(hidden_size=4)
    theta = config.build().init_theta(jax.random.key(3))
    path = tmp_path / "mine.npz"
    shipped.write_weights(path, config, theta, note="made by a test")
    learned, again = lopt.load_theta(str(path))
    assert learned.config == config  # type: ignore[attr-defined]
    jax.tree.map(np.testing.assert_array_equal, theta, again)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.npz"]
    assert shipped.read_trained_on(str(path)) is None


def test_a_file_says_what_its_weights_were_trained_on_if_it_was_told(tmp_path: Path) -> None:
    config, path = PacerConfig(hidden_size=4), tmp_path / "mine.npz"
    theta = config.build().init_theta(jax.random.key(3))
    for domains in ([{"phase": "one"}, {"phase": "two"}], []):
        shipped.write_weights(path, config, theta, trained_on=domains)
        assert shipped.read_trained_on(str(path)) == domains
        jax.tree.map(np.testing.assert_array_equal, theta, lopt.load_theta(str(path))[1])


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"not a zip", lambda b: b""])
def test_a_damaged_file_is_named(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "mine.npz"
    shipped.write_weights(path, PacerConfig(), PacerConfig().build().init_theta(jax.random.key(0)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"mine\.npz"):
        lopt.load(str(path), num_steps=5)


def test_an_architecture_can_be_had_before_any_meta_training() -> None:
    params = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), "b": jnp.ones(4)}
    grads = jax.tree.map(jnp.cos, params)
    optimizer = lopt.load("initial:pacer", num_steps=50)
    found, _ = optimizer.update(grads, optimizer.init(params), params, value=jnp.float32(1.0))
    learned = PacerConfig().build()  # at its start `pacer` is the same rule, whatever its hidden weights are
    other = learned.transform(learned.init_theta(jax.random.key(7)), num_steps=50)
    expected, _ = other.update(grads, other.init(params), params, value=jnp.float32(1.0))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), found, expected)
    assert isinstance(lopt.load_theta("initial:velo")[0], type(lopt.ARCHITECTURES["velo"]().build()))
    with pytest.raises(lopt.UnknownNameError, match=r"'pacr'.*Did you mean 'pacer'"):
        lopt.load("initial:pacr", num_steps=5)


def no_alias(reference: str) -> Any:
    raise LookupError("no such alias." if reference == "velo" else "no such alias")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        lopt.load(str(tmp_path / "nowhere.npz"), num_steps=5)
    with pytest.raises(lopt.UnknownNameError, match=r"'vello'.*Did you mean 'velo'"):
        lopt.load("shipped:vello", num_steps=5)
    with pytest.raises(LookupError, match=r"no such alias\. .*'shipped:velo'"):
        lopt.load("velo", num_steps=5, resolver=no_alias)
    with pytest.raises(LookupError, match=r"no such alias$"):
        lopt.load("vello", num_steps=5, resolver=no_alias)
    with pytest.raises(ValueError, match=r"\.npz"):
        shipped.write_weights(tmp_path / "mine.txt", PacerConfig(), {})


@pytest.mark.parametrize("name", fast_for("pacer", among=shipped.shipped_names()))
def test_shipped_weights_train_a_small_regression(name: str) -> None:
    """Far from what they were trained on: the loss falls by half in sixty steps, and nothing diverges."""
    x = jax.random.normal(jax.random.key(0), (64, 8))
    y = jnp.tanh(x @ jax.random.normal(jax.random.key(1), (8, 4)))

    def draw(seed: int, shape: tuple[int, int]) -> jax.Array:
        return jax.random.normal(jax.random.key(seed), shape) / jnp.sqrt(jnp.float32(shape[0]))

    params = {"w0": draw(2, (8, 16)), "b0": jnp.zeros(16), "w1": draw(3, (16, 4)), "b1": jnp.zeros(4)}

    def loss_fn(p: Any) -> jax.Array:
        hidden = jnp.tanh(x @ p["w0"] + p["b0"][None])
        return jnp.mean(jnp.square(hidden @ p["w1"] + p["b1"][None] - y))

    optimizer = lopt.load(f"shipped:{name}", num_steps=60)

    @jax.jit
    def step(carry: Any) -> Any:
        params, state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = optimizer.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    carry = (params, optimizer.init(params))
    for _ in range(60):
        carry = step(carry)
    assert float(loss_fn(carry[0])) < 0.5 * float(loss_fn(params))


def test_the_small_velo_pacer_and_celo2_ship() -> None:
    assert {"celo2", "pacer", "velo"} <= set(shipped.shipped_names())
