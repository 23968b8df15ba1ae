"""Shapes, weights and compiled steps for the tests of `celo2`."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
from optimizers import perturbed_theta

from lopt.architectures.celo2 import Celo2

VARIANTS = {"c_celo2_base": "normalized", "c_celo2_orth": "orthogonalized"}
SHAPES = {
    "scalar": (),
    "one": (1,),
    "bias": (6,),
    "row": (1, 5),
    "tall": (17, 9),
    "twin": (17, 9),
    "wide": (16, 30),
    "small": (3, 2, 2),
    "conv": (2, 3, 14, 20),
}
FEW = {name: SHAPES[name] for name in ("scalar", "bias", "wide")}
"""For what does not depend on the shape: every shape is compiled by itself."""


def noisy_theta(learned: Celo2, seed: int = 0) -> Any:
    """Theta with biases, which `init_theta` starts at zero."""
    return perturbed_theta(learned, seed, 0.1)


def normal(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@cache
def program(learned: Celo2) -> tuple[Any, Any]:
    """`init` and `update`, compiled once for all weights, horizons and tests."""
    optimizer = lambda theta, num_steps: learned.transform(theta, num_steps=num_steps)
    return (
        jax.jit(lambda theta, num_steps, params: optimizer(theta, num_steps).init(params)),
        jax.jit(lambda theta, num_steps, *args: optimizer(theta, num_steps).update(*args)),
    )


def first_update(learned: Celo2, theta: Any, params: Any, grads: Any, *, num_steps: int = 10) -> Any:
    init, update = program(learned)
    return update(theta, num_steps, grads, init(theta, num_steps, params), params)[0]


def rms(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))
