"""`rnn_mlp` against the published network, the paper in float64, and what arrays cannot show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden_runs import assert_follows, leaves, read_arrays
from rnn_mlp_reference import Reference

from lopt import rnn_mlp_rule
from lopt.architectures.rnn_mlp import RnnMlpConfig

SIZES = {
    "lstm_hidden_size": 8,
    "mlp_hidden_sizes": (12, 6),
    "lstm_to_lstm_size": 5,
    "lstm_to_mlp_size": 4,
    "mlp_to_lstm_size": 3,
}
SMALL = RnnMlpConfig(**SIZES)
VARIANTS = {
    "default": (SMALL, {"loss_decays": (0.95, 0.9), "feature_bound": 1.0, "epsilon": 1e-8}),
    "released": (
        RnnMlpConfig.released(**SIZES),
        {"loss_decays": (0.9, 0.95), "feature_bound": None, "epsilon": 1e-5},
    ),
}
NUM_STEPS = 12


def theta_of(arrays: dict[str, np.ndarray]) -> Any:
    """The golden file's theta in our layout."""
    at = lambda path: jnp.asarray(arrays[f"theta/{path}"])  # noqa: E731
    linear = lambda path: {"w": at(f"{path}/w"), "b": at(f"{path}/b")}  # noqa: E731
    layer = "ffmod_params/mlp/~/linear_"
    return {
        "lstm_init": {"hidden": at("lstm_init_state/hidden"), "cell": at("lstm_init_state/cell")},
        "from_lstm_init": at("initial_from_lstm"),
        "from_mlp_init": at("initial_from_mlp"),
        "lstm": linear("rnn_params/rnn/linear"),
        "lstm_to_lstm": linear("rnn_to_in_params/rnn_to_in"),
        "lstm_to_mlp": linear("rnn_to_ff_params/rnn_to_ff"),
        "network": {f"{kind}{i}": at(f"{layer}{i}/{kind}") for i in range(3) for kind in ("w", "b")},
    }


def random_theta(config: RnnMlpConfig, seed: int = 0) -> Any:
    """Initial theta with noise, so that nothing in it is zero."""
    theta = config.build().init_theta(jax.random.key(seed))
    paths, treedef = jax.tree.flatten(theta)
    keys = jax.random.split(jax.random.key(seed + 1), len(paths))
    return treedef.unflatten([x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(paths, keys, strict=True)])


@pytest.fixture
def arrays(golden: Path) -> dict[str, np.ndarray]:
    return read_arrays(golden, "b_rnn_mlp.npz")


def test_follows_the_published_network_and_ends_in_its_state(arrays: dict[str, np.ndarray]) -> None:
    optimizer = RnnMlpConfig.released().build().transform(theta_of(arrays), num_steps=50)
    params = {k: jnp.asarray(v) for k, v in leaves(arrays, "params", 0).items()}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    path = [params]
    for t, loss in enumerate(arrays["losses"]):
        grads = {k: jnp.asarray(v) for k, v in leaves(arrays, "grads", t).items()}
        updates, state = update(grads, state, params, value=jnp.float32(loss))
        params = jax.tree.map(jnp.add, params, updates)
        path.append(params)
    assert_follows(path, arrays)
    close = lambda mine, name: np.testing.assert_allclose(  # noqa: E731
        mine, arrays[f"final_state/{name}"], rtol=1e-5, atol=5e-6
    )
    close(state.clip.size, "clip")
    close(state.lstm.hidden, "lstm_hidden")
    close(state.lstm.cell, "lstm_cell")
    close(state.from_lstm, "from_lstm")
    for row, leaf in enumerate(sorted(params)):
        close(state.from_mlp[row], f"from_mlp/{leaf}")


def tensors(seed: int) -> list[jax.Array]:
    """A vector of one element next to a scalar (one stack, two ranks), equal shapes apart, rank six, zeros."""
    shapes: tuple[tuple[int, ...], ...] = ((), (6, 5), (1,), (7,), (6, 5), (2, 1, 3, 1, 2, 2), (4, 4))
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    found = [0.3 * jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
    found[3] = jnp.zeros((7,))
    return found


def gradients(case: str, step: int) -> list[jax.Array]:
    noise = [x * 3.0 for x in tensors(100 + step)]
    if case == "zero":
        return [jnp.zeros_like(x) for x in noise]
    if case == "large":
        return [1e5 * x for x in noise]
    if case == "zero rows":
        return [x.at[0].set(0.0) if x.ndim else x for x in noise]
    if case == "one large entry":
        return [x.at[(0,) * x.ndim].set(50.0) for x in noise]
    return noise


def loss_at(step: int) -> float:
    return {4: 1e6, 7: -3.0}.get(step, 2.0 / (1.0 + step))  # a spike, and a loss below zero


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", ["plain", "zero", "large", "zero rows", "one large entry"])
def test_follows_the_paper_in_float64(variant: str, case: str) -> None:
    config, constants = VARIANTS[variant]
    theta = random_theta(config)
    clip = (0.99, 10.0)
    if config.learned_clip:
        logs = {k: float(v) for k, v in theta["clip"].items()}
        clip = (1.0 - np.exp(logs["log_one_minus_decay"]), np.exp(logs["log_multiplier"]))
    numbers = jax.tree.map(np.asarray, {k: v for k, v in theta.items() if k != "clip"})
    released = variant == "released"
    reference = Reference(numbers, tensors(0), clip=clip, counts_validation=released, **constants)
    opt = config.build().transform(theta, num_steps=NUM_STEPS)
    params = tensors(0)
    state = opt.init(params)
    update = jax.jit(opt.update)
    for step in range(NUM_STEPS):
        grads, loss = gradients(case, step), loss_at(step)
        valid = 1.5 * loss if step % 3 == 1 else None
        given = jnp.float32(jnp.nan if valid is None else valid)
        updates, state = update(grads, state, params, value=jnp.float32(loss), valid_value=given)
        expected = reference.step([np.asarray(g) for g in grads], loss, valid)
        for mine, theirs in zip(updates, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-4 * np.max(np.abs(theirs)))
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(state.lstm.hidden, reference.hidden, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(state.from_mlp, np.stack(reference.from_mlp), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(state.from_lstm, reference.from_lstm, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(state.clip.size, reference.snd, rtol=1e-4)
    assert int(state.progress) == NUM_STEPS + (4 if released else 0)
