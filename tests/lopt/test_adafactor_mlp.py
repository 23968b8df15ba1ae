"""`adafactor_mlp` against the published network, and what the published network's arrays cannot show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from golden_runs import assert_follows, read_arrays, run

from lopt.architectures.adafactor_mlp import AdafactorMlpConfig


def theta_of(arrays: dict[str, np.ndarray]) -> Any:
    """The golden file's theta in our layout."""
    at = lambda path: jnp.asarray(arrays[f"theta/{path}"])  # noqa: E731
    return {
        "network": {name: at(f"nn/~/{name}") for name in ("w0", "b0", "w1", "b1", "w2", "b2")},
        "momentum_decays": at("momentum_decays"),
        "second_moment_decays": at("rms_decays"),
        "factored_decays": at("adafactor_decays"),
    }


@pytest.mark.parametrize("config", [AdafactorMlpConfig(), AdafactorMlpConfig.released()], ids=["default", "released"])
def test_follows_the_published_network(golden: Path, config: AdafactorMlpConfig) -> None:
    arrays = read_arrays(golden, "b_adafac_mlp.npz")
    assert_follows(run(config.build().transform(theta_of(arrays), num_steps=50), arrays), arrays)


def test_follows_the_published_network_with_large_steps(golden: Path) -> None:
    theta = theta_of(read_arrays(golden, "b_adafac_mlp.npz"))
    arrays = read_arrays(golden, "b_adafac_mlp_bigstep.npz")
    learned = AdafactorMlpConfig(step_mult=0.1, exp_mult=0.1).build()
    assert_follows(run(learned.transform(theta, num_steps=50), arrays), arrays)
