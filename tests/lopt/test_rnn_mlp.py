"""`rnn_mlp` against the published network, and what the published network's arrays cannot show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_runs import assert_follows, leaves, read_arrays

from lopt.architectures.rnn_mlp import RnnMlpConfig


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
        mine, arrays[f"final_state/{name}"], rtol=1e-4, atol=1e-5
    )
    close(state.clip.size, "clip")
    close(state.lstm.hidden, "lstm_hidden")
    close(state.lstm.cell, "lstm_cell")
    close(state.from_lstm, "from_lstm")
    for row, leaf in enumerate(sorted(params)):
        close(state.from_mlp[row], f"from_mlp/{leaf}")
