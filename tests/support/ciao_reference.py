"""What the tests of `ciao` share: a made-up run, its equations in float64, and the released optimizer's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.architectures.ciao import CiaoConfig
from lopt.rules.ciao import CiaoHyperparameters

SHAPES = {"b": (4,), "s": (), "w": (3, 4), "z": (2, 2)}  # z starts at zero


def start() -> dict[str, np.ndarray]:
    params = {
        name: 0.3 * np.sin(1.0 + 0.7 * np.arange(math.prod(shape))).reshape(shape)
        for name, shape in SHAPES.items()
    }
    return {**params, "z": 0.0 * params["z"]}


def gradient(name: str, step: int) -> np.ndarray:
    """A made-up gradient whose size varies a hundredfold from step to step."""
    i, phase = np.arange(math.prod(SHAPES[name])), 1.0 + list(SHAPES).index(name) / 7.0
    return 10.0 ** np.cos(2.0 * step) * np.cos(0.5 * i**1.5 + step * phase).reshape(SHAPES[name])


def single(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def gradients(step: int, scale: float = 1.0) -> dict[str, jax.Array]:
    return single({name: scale * gradient(name, step) for name in SHAPES})


def values(config: CiaoConfig) -> dict[str, float]:
    """The configured hyper-parameters as Python numbers."""
    named = {name: getattr(config, name) for name in CiaoHyperparameters._fields if name != "adamax"}
    return {**named, "adamax": float(config.denominator == "adamax")}


class Reference:
    """The equations in float64, averages written as weighted sums over the whole history."""

    def __init__(self, params: Mapping[str, np.ndarray], clip_epsilon: float = 0.0):
        self.params = {name: p.copy() for name, p in params.items()}
        self.clip_epsilon = clip_epsilon
        self.max_norm = 0.0
        self.seen: list[tuple[dict[str, float], dict[str, np.ndarray]]] = []
        self.norms: list[dict[str, float]] = []
        self.square = {name: np.zeros_like(p) for name, p in params.items()}
        self.square_weight = 0.0

    def average(self, rate_name: str, history: list[Any]) -> Any:
        """Σ (1 − β_s)·Π_{r > s} β_r·x_s, divided by the sum of those weights."""
        rates = [h[rate_name] for h, _ in self.seen]
        weights = [rate * math.prod(1 - later for later in rates[s + 1 :]) for s, rate in enumerate(rates)]
        return sum(w * x for w, x in zip(weights, history, strict=True)) / sum(weights)

    def step(self, grads: Mapping[str, np.ndarray], h: dict[str, float]) -> None:
        norm = math.sqrt(sum(float(np.sum(g**2)) for g in grads.values()))
        self.max_norm = max((1 - h["one_minus_beta_clip"]) * self.max_norm, norm)
        limit = h["clip_fraction"] * self.max_norm / (norm + self.clip_epsilon)
        clipped = {name: min(limit, 1.0) * g for name, g in grads.items()}
        self.seen.append((h, clipped))
        rate = h["one_minus_beta2"]
        weight = (1 - rate) * self.square_weight + rate
        directions = {}
        for name, g in clipped.items():
            root = np.sqrt(self.square[name] / self.square_weight) if self.square_weight else 0.0 * g
            if h["adamax"]:
                scale = np.maximum((1 - rate) * root, np.abs(g))
                self.square[name] = scale**2
            else:
                self.square[name] = (1 - rate) * self.square[name] + rate * g**2
                scale = np.sqrt(self.square[name] / weight)
            mean = self.average("one_minus_beta1", [past[name] for _, past in self.seen])
            directions[name] = mean / (scale + h["epsilon"]) + h["weight_decay"] * self.params[name]
        self.square_weight = 1.0 if h["adamax"] else weight
        self.norms.append({name: float(np.linalg.norm(d)) for name, d in directions.items()})
        for name, direction in directions.items():
            smoothed = self.average("one_minus_beta_trust", [past[name] for past in self.norms])
            size = float(np.linalg.norm(self.params[name]))
            power = h["trust_power"] if direction.ndim >= 2 else h["vector_trust_power"]
            usable = size >= 1e-8 and smoothed >= 1e-8
            trust = max(size / smoothed, h["minimum_trust"]) ** power if usable else 1.0
            self.params[name] = self.params[name] - h["learning_rate"] * trust * direction


CHANGES: dict[int, dict[str, float]] = {
    3: {"learning_rate": 2e-2, "one_minus_beta1": 0.4, "one_minus_beta2": 0.05},
    6: {"epsilon": 0.5, "weight_decay": 0.1, "clip_fraction": 0.3},
    8: {"one_minus_beta_clip": 0.3, "one_minus_beta_trust": 0.4, "trust_power": 0.5},
}
"""The changes under which the released optimizer's numbers below were taken."""

# Printed by the released optimizer (openai/LHOPT, PyTorch, float64) at its example configuration, features off, for
# 12 steps of `gradient` under `CHANGES`; with its denominator_norm "inf" and None.
RELEASED = {
    "adamax": {
        "b": [0.26887127, 0.31329897, 0.21918251, -0.0073942521],
        "s": [0.26809091],
        "w": [
            0.25423672,
            0.29536382,
            0.19079986,
            0.0055258787,
            -0.17930141,
            -0.28225744,
            -0.26701735,
            -0.11694424,
            0.099413558,
            0.24867035,
            0.28789333,
            0.20289867,
        ],
        "z": [-0.00090960952, -0.0007661136, -0.00070688513, 0.0010648138],
    },
    "adam": {
        "b": [0.27498048, 0.31970881, 0.22574896, -0.013048861],
        "s": [0.27347416],
        "w": [
            0.25496399,
            0.29774276,
            0.19027435,
            0.0061423014,
            -0.17745505,
            -0.28365802,
            -0.27246842,
            -0.11650726,
            0.10004248,
            0.2453778,
            0.28861747,
            0.20306441,
        ],
        "z": [-0.00082536455, -0.00056883602, -0.00060335005, 0.001086022],
    },
}


def assert_follows(ours: Any, theirs: Mapping[str, Any], tolerance: float) -> None:
    for name, begun in start().items():
        reference = np.asarray(theirs[name], np.float64).reshape(begun.shape)
        moved = np.linalg.norm(reference - begun)
        assert moved > 1e-4  # the agreement is not that of two optimizers standing still
        error = np.linalg.norm(np.asarray(ours[name], np.float64) - reference)
        rounding = 5e-7 * np.linalg.norm(
            begun
        )  # of the parameters themselves, 6e-8 at each of some twenty steps
        assert error <= tolerance * moved + rounding, f"{name}: off by {error:.3g}"


def train(
    opt: optax.GradientTransformationExtraArgs, steps: int, options: Callable[[int], dict[str, Any]]
) -> tuple[Any, Any]:
    """The parameters and the state after `steps` jitted updates; `options(step)` are extra keywords."""
    params = single(start())
    state = opt.init(params)
    update = jax.jit(opt.update)
    for step in range(steps):
        updates, state = update(gradients(step), state, params, **options(step))
        params = optax.apply_updates(params, updates)
    return params, state
