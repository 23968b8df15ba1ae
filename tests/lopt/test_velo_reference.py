"""`velo` against its equations in float64, one tensor at a time, where the golden arrays don't go."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.architectures.velo import VeloConfig
from lopt.features import tensor_summary

SHAPES = {
    "column": (7, 1),
    "conv": (3, 3, 2, 5),
    "matrix": (6, 11),
    "none": (0, 4),
    "rank six": (2, 2, 1, 3, 2, 2),
    "scalar": (),
    "single": (1, 1, 1),
    "tied": (4, 4, 4),
    "vector": (9,),
}
BETAS = np.float32([0.9, 0.99, 0.999])
RATES = (np.float32(1.0) - BETAS).astype(np.float64)  # 1 − β is taken in float32 by the release
FRACTIONS = np.asarray([0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1])


def rsqrt(x: Any) -> Any:
    return 1.0 / np.sqrt(x)


def linear(layer: Any, x: Any) -> Any:
    return x @ layer["w"] + layer["b"]


def averaged(old: Any, new: Any) -> Any:
    """Three moving averages along a trailing axis."""
    return BETAS.astype(np.float64) * old + RATES * new[..., None]


class Reference:
    """The published rule (SPEC 1.1) in float64."""

    def __init__(self, theta: Any, params: Any, num_steps: int):
        self.theta = jax.tree.map(lambda x: np.asarray(x, np.float64), theta)
        self.names = [name for name in sorted(params) if params[name].size]
        self.m: dict[str, Any] = {name: np.zeros((*params[name].shape, 3)) for name in self.names}
        self.v: dict[str, Any] = {name: np.zeros(params[name].shape) for name in self.names}
        self.row: dict[str, Any] = dict.fromkeys(self.names, 0.0)
        self.col: dict[str, Any] = dict.fromkeys(self.names, 0.0)
        rows = [len(self.names), 1]
        self.hidden, self.cell = (np.tile(self.theta["lstm_init"][k], rows) for k in ("hidden", "cell"))
        self.num_steps, self.t = num_steps, 0
        self.decays = np.exp(-1.0 / np.logspace(1.0, np.log10(num_steps), 10))
        self.means, self.lowest = np.zeros(10), np.full(10, 999_999_999_999.0)

    def loss_features(self, loss: float) -> Any:
        corrected = self.means / (1.0 - self.decays ** (self.t + 1))
        loss = min(2.0 * abs(loss if self.t == 0 else corrected.max()), loss)
        self.means = self.decays * self.means + (1.0 - self.decays) * loss
        ema = self.means / (1.0 - self.decays ** (self.t + 1))
        self.lowest = np.minimum(self.lowest, ema)
        ratio = (ema[:-1] - self.lowest[:-1]) / np.maximum(1e-8, ema[1:] - self.lowest[:-1])
        return np.clip(ratio - 1.0, -1.0, 1.0) if self.t >= 2 else np.zeros(9)

    def summary(self, name: str, param: Any, loss: Any) -> Any:
        size = rsqrt(max(1e-9, np.mean(param**2)))
        m, v = size * self.m[name].reshape(-1, 3), size * self.v[name].reshape(-1, 1)
        log = lambda x: 0.5 * np.clip(np.log(1e-8 + np.abs(10.0 * x)), -5.0, 5.0)
        left = np.tanh(10.0 * (self.t / self.num_steps - FRACTIONS))
        rank = np.arange(5) == sum(n > 1 for n in param.shape)
        moments = [log(v.mean(0)), rank, log(m.var(0)), log(np.mean((v - m.mean(0)) ** 2, axis=0))]
        return np.concatenate([left, loss, *moments])

    def control(self, summaries: Any) -> tuple[Any, Any]:
        theta = self.theta
        heard = np.maximum(linear(theta["mix_all"], summaries), 0.0).max(0, keepdims=True)
        x = np.concatenate([linear(theta["mix_self"], summaries) + heard, self.hidden], axis=1)
        i, g, f, o = np.split(linear(theta["lstm"], x), 4, axis=1)
        sigmoid = lambda x: 1.0 / (1.0 + np.exp(-x))
        self.cell = sigmoid(f + 1.0) * self.cell + sigmoid(i) * np.tanh(g)
        self.hidden = sigmoid(o) * np.tanh(self.cell)
        return linear(theta["controls"], self.hidden), linear(theta["step_scalar"], self.hidden)[:, 0]

    def features(self, name: str, param: Any, grad: Any) -> Any:
        self.m[name] = averaged(self.m[name], grad)
        self.v[name] = averaged(self.v[name][..., None], grad**2)[..., 2]
        m, root, g, squared = (
            self.m[name],
            rsqrt(self.v[name] + 1e-6)[..., None],
            grad[..., None],
            grad**2 + 1e-30,
        )
        if param.ndim > 1:
            *_, second, largest = np.argsort(param.shape, kind="stable")
            self.row[name] = averaged(self.row[name], squared.mean(largest, keepdims=True))
            self.col[name] = averaged(self.col[name], squared.mean(second, keepdims=True))
            row, col = self.row[name], self.col[name]
            share = row / (row.mean(second, keepdims=True) + 1e-9)
            factor = rsqrt(np.maximum(share, 1e-9)) * rsqrt(np.maximum(col, 1e-9))
            factored = [g * factor, m * factor]
        else:
            row = col = self.row[name] = averaged(self.row[name], squared)
            factored = [g * rsqrt(np.maximum(row + 1e-9, 1e-9)), m * rsqrt(row)]
        values = [g, np.clip(g, -0.1, 0.1), param[..., None], m, self.v[name][..., None], m * root, root]
        values += [factored[0], g * root, row, col, rsqrt(row + 1e-8), rsqrt(col + 1e-8), factored[1]]
        full = [np.broadcast_to(x, (*param.shape, x.shape[-1])).reshape(param.size, -1) for x in values]
        return np.concatenate(full, axis=1)

    def update(self, params: Any, grads: Any, loss: float) -> dict[str, Any]:
        """Returns the update of every tensor that isn't empty."""
        params = {name: np.asarray(params[name], np.float64) for name in self.names}
        seen = self.loss_features(loss)
        controls, steps = self.control(np.stack([self.summary(n, params[n], seen) for n in self.names]))
        updates = {}
        for name, mix, step in zip(self.names, controls, steps, strict=True):
            param, bank = params[name], self.theta["bank"]
            x = self.features(name, param, np.clip(np.asarray(grads[name], np.float64), -1000.0, 1000.0))
            x = x * rsqrt(1e-5 + np.mean(x**2, axis=0))
            for i in range(3):
                w, b = (100.0 / len(mix) * np.tensordot(mix, bank[f"{kind}{i}"], axes=1) for kind in "wb")
                x = (np.maximum(x, 0.0) if i else x) @ w + b
            size = 0.001 * step * np.sqrt(np.mean(param**2) + 1e-9)
            updates[name] = (-x[:, 0] * np.exp(0.001 * x[:, 1]) * size).reshape(param.shape)
        self.t += 1
        return updates


def gradient(kind: str, t: int, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    grad = rng.standard_normal(shape)
    if kind == "zero rows" and grad.size > 1:
        grad[:1], grad[..., -1:] = 0.0, 0.0
    return grad * {"zero": 0.0, "1e5": 1e5, "1e-8": 1e-8, "on and off": t % 2}.get(
        kind, 10.0 ** rng.uniform(-3, 1)
    )


LOSSES = {"spikes": lambda t: 1e6 if t in (3, 9) else 2.0 * 0.9**t, "negative": lambda t: -1.0 - t / 3.0}


def follow(config: VeloConfig, kind: str = "plain", *, num_steps: int = 50, num_updates: int = 12) -> None:
    """Asserts that every update is the reference's, to 1e-4 of the tensor's largest one; params are in common."""
    rng = np.random.default_rng(3)
    draw = lambda x: x + jnp.asarray(0.03 * rng.standard_normal(x.shape), jnp.float32)
    learned = config.build()
    theta = jax.tree.map(draw, learned.init_theta(jax.random.key(1)))
    params = {name: jnp.asarray(0.3 * rng.standard_normal(s), jnp.float32) for name, s in SHAPES.items()}
    optimizer = learned.transform(theta, num_steps=num_steps)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    reference, errors, sizes = Reference(theta, params, num_steps), [], []
    for t in range(num_updates):
        loss = np.float32(LOSSES.get(kind, lambda t: 2.0 * 0.9**t)(t))
        grads = {n: jnp.asarray(gradient(kind, t, s, rng), jnp.float32) for n, s in SHAPES.items()}
        updates, state = update(grads, state, params, value=loss)
        wanted = reference.update(params, grads, float(loss))
        errors.append([np.linalg.norm(np.asarray(updates[n], np.float64) - wanted[n]) for n in wanted])
        sizes.append([np.linalg.norm(wanted[n]) for n in wanted])
        params = jax.tree.map(jnp.add, params, updates)
    assert np.all(np.max(errors, axis=0) <= 1e-4 * np.max(sizes, axis=0)), np.max(errors, 0) / np.max(
        sizes, 0
    )


SMALL = VeloConfig(lstm_hidden_size=16, mlp_bank_size=5)


@pytest.mark.parametrize(
    "kind", ["plain", "zero", "zero rows", "1e5", "1e-8", "on and off", "spikes", "negative"]
)
def test_equals_a_float64_reference(kind: str) -> None:
    follow(SMALL, kind)


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [1, 5, 200_000])
def test_equals_the_reference_at_every_horizon_and_beyond_it(num_steps: int) -> None:
    follow(SMALL, num_steps=num_steps, num_updates=7)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (7, 3, 2), (64, 32, 4)], ids=["of one unit each", "odd", "larger"]
)
def test_other_sizes_equal_the_reference(sizes: tuple[int, int, int]) -> None:
    lstm, bank, hidden = sizes
    follow(VeloConfig(lstm_hidden_size=lstm, mlp_bank_size=bank, mlp_hidden_size=hidden), num_updates=4)


@pytest.mark.slow
def test_summaries_of_large_tensors_equal_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are computed another way than those of small ones: here, for all."""
    monkeypatch.setattr(tensor_summary, "SMALL_TENSOR", 0)
    follow(VeloConfig(lstm_hidden_size=15, mlp_bank_size=5))  # no other test's sizes: compiled anew
