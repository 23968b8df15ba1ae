"""`per_parameter_mlp` against the published network, and what the published network's arrays cannot show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from golden_runs import assert_follows, read_arrays, run

from lopt.architectures.per_parameter_mlp import PerParameterMlpConfig


def theta_of(arrays: dict[str, np.ndarray]) -> Any:
    """The golden file's theta in our layout."""
    return {
        f"{kind}{i}": jnp.asarray(arrays[f"theta/mlp/~/linear_{i}/{kind}"]) for i in range(3) for kind in ("w", "b")
    }


@pytest.mark.parametrize("max_gradient", [None, 1e15])
def test_follows_the_published_network(golden: Path, max_gradient: float | None) -> None:
    arrays = read_arrays(golden, "b_mlp.npz")
    learned = PerParameterMlpConfig.released(max_gradient=max_gradient).build()
    assert_follows(run(learned.transform(theta_of(arrays), num_steps=50), arrays), arrays)
