"""What `rnn_mlp` is run with in tests: weights, awkward tensors and gradients, and losses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lopt.architectures.rnn_mlp import RnnMlpConfig


def theta_of(arrays: dict[str, np.ndarray]) -> Any:
    """The golden file's theta in our layout."""
    at = lambda path: jnp.asarray(arrays[f"theta/{path}"])
    linear = lambda path: {"w": at(f"{path}/w"), "b": at(f"{path}/b")}
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
    return treedef.unflatten(
        [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(paths, keys, strict=True)]
    )


def tensors(seed: int) -> list[jax.Array]:
    """A vector of one element next to a scalar (one stack, two ranks), equal shapes apart, rank six, zeros."""
    shapes: tuple[tuple[int, ...], ...] = ((), (6, 5), (1,), (7,), (6, 5), (2, 1, 3, 1, 2, 2))
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
