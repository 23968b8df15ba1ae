"""`velo` against the published network, and what the published network's arrays cannot show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_runs import assert_follows, leaves, read_arrays, run

from lopt.architectures.velo import VeloConfig
from lopt.features import loss_accumulators as la

GOLDEN_SIZES = {"lstm_hidden_size": 32, "mlp_bank_size": 8}


def theta_of(arrays: dict[str, np.ndarray]) -> Any:
    """The golden file's theta in our layout."""
    at = lambda path: jnp.asarray(arrays[f"theta/{path}"])  # noqa: E731
    linear = lambda path: {"w": at(f"rnn_params/{path}/w"), "b": at(f"rnn_params/{path}/b")}  # noqa: E731
    bank = {name: at(f"ff_mod_stack/~/{name}") for name in ("w1", "w2", "b0", "b1", "b2")}
    bank["w0"] = jnp.concatenate([at(f"ff_mod_stack/~/w0__{i}") for i in range(14)], axis=1)
    return {
        "lstm_init": {"hidden": at("lstm_init_state/hidden"), "cell": at("lstm_init_state/cell")},
        "dead_mixing_layer": linear("linear"),
        "mix_all": linear("linear_1"),
        "mix_self": linear("linear_2"),
        "lstm": linear("rnn/linear"),
        "controls": linear("rnn_to_controls"),
        "step_scalar": linear("step_size"),
        "bank": bank,
    }


@pytest.fixture
def arrays(golden: Path) -> dict[str, np.ndarray]:
    return read_arrays(golden, "a_velo_h32_p8.npz")


def test_follows_the_published_network(arrays: dict[str, np.ndarray]) -> None:
    learned = VeloConfig.released(**GOLDEN_SIZES).build()
    assert_follows(run(learned.transform(theta_of(arrays), num_steps=50), arrays), arrays)


def test_controls_and_states_are_the_published_ones(arrays: dict[str, np.ndarray]) -> None:
    optimizer = VeloConfig.released(**GOLDEN_SIZES).build().transform(theta_of(arrays), num_steps=50)
    params = {k: jnp.asarray(v) for k, v in leaves(arrays, "params", 0).items()}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for t, loss in enumerate(arrays["losses"]):
        params = {k: jnp.asarray(v) for k, v in leaves(arrays, "params", t).items()}
        grads = {k: jnp.asarray(v) for k, v in leaves(arrays, "grads", t).items()}
        _, state = update(grads, state, params, value=jnp.float32(loss))
        np.testing.assert_allclose(state.controls, arrays["debug/controls"][t], rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(state.step_scalars, arrays["debug/lr_mult"][t], rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(state.lstm.hidden, arrays["debug/lstm_hidden"][t], rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(state.lstm.cell, arrays["debug/lstm_cell"][t], rtol=2e-4, atol=2e-5)
