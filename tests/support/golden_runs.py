"""Reading the golden arrays: outputs of the published networks, and the check they come with.

They live outside the repository; the fixture `golden` gives their folder, or skips and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from compilation import AS_FOR_USERS

Arrays = Mapping[str, np.ndarray]


def read_arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of one file of the `golden` folder."""
    with np.load(folder / name) as arrays:
        return {key: arrays[key] for key in arrays.files}


def leaves(arrays: Arrays, prefix: str, step: int | None = None) -> dict[str, np.ndarray]:
    """Returns `{leaf: array}` for the keys `prefix/<leaf>`, at one step if given."""
    found = {
        key.removeprefix(prefix + "/"): value for key, value in arrays.items() if key.startswith(prefix + "/")
    }
    return found if step is None else {name: value[step] for name, value in found.items()}


def assert_follows(mine: list[Any], arrays: Arrays, *, tolerance: float = 1e-4) -> None:
    """Asserts ‖mine[t] − params[t]‖ ≤ tolerance·‖params[t] − params[0]‖ + 1e-7·‖params[0]‖ for every leaf and t.

    Args:
      mine: Parameters after 0, 1, … updates: one dictionary per step.
      arrays: The golden file, with `params/<leaf>` of shape [T + 1, …].
      tolerance: Relative to the displacement; the published check uses 1e-4.
    """
    for name, path in leaves(arrays, "params").items():
        assert len(mine) == len(path)
        for t, params in enumerate(mine):
            error = np.linalg.norm(np.asarray(params[name], np.float64) - path[t])
            bound = tolerance * np.linalg.norm(path[t] - path[0]) + 1e-7 * np.linalg.norm(path[0])
            assert error <= bound, f"{name} after {t} updates: off by {error:.3g}, allowed {bound:.3g}"


def run(optimizer: Any, arrays: Arrays, *, scale: float = 1.0) -> list[dict[str, Any]]:
    """Returns the parameters along a golden run under `optimizer`: `params + scale · update` at each step."""
    params: dict[str, Any] = {k: jnp.asarray(v) for k, v in leaves(arrays, "params", 0).items()}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update, compiler_options=AS_FOR_USERS)
    path = [params]
    for t, loss in enumerate(arrays["losses"]):
        grads = {k: jnp.asarray(v) for k, v in leaves(arrays, "grads", t).items()}
        updates, state = update(grads, state, params, value=jnp.float32(loss))
        params = jax.tree.map(lambda p, u: p + scale * u, params, updates)
        path.append(params)
    return path
