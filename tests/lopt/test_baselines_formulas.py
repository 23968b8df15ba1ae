"""The learning-rate-tuned baselines against their papers' formulas, written down again in float64 NumPy."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.baselines import BASELINES, LEARNING_RATE_TUNED
from lopt.baselines.adamw_schedules import NUM_SETTINGS, SCHEDULES, multipliers, schedule_setting
from lopt.baselines.scheduled_adam import exp_decay, sqrt_decay

Array = np.ndarray
Step = Callable[[Array, Array, dict[str, Array], int], Array]
"""(gradient, parameters, state, t = 1, 2, …) → what is subtracted; the state is changed in place."""

RATE = 0.01
ROUNDING = {"radam": 0.01}
"""Relative error of an update. optax's RAdam loses digits in float32 where its variance begins to count."""
SHAPES = {"matrix": (5, 3), "bias": (4,), "large": (128, 130)}


def ema(state: dict[str, Array], key: str, value: Array, decay: float, start: float = 0.0) -> Array:
    state[key] = decay * state.get(key, np.full_like(value, start)) + (1 - decay) * value
    return state[key]


def single(tree: dict[str, Array]) -> dict[str, jax.Array]:
    return {key: jnp.asarray(value, jnp.float32) for key, value in tree.items()}


def norm(x: Array) -> float:
    return float(np.sqrt(np.sum(np.square(x))))


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def debiased_adam(g: Array, s: dict[str, Array], t: int, *, eps: float, eps_root: float = 0.0) -> Array:
    m = ema(s, "m", g, 0.9) / (1 - 0.9**t)
    v = ema(s, "v", g**2, 0.999) / (1 - 0.999**t)
    return m / (np.sqrt(v + eps_root) + eps)


def sgdm(g: Array, p: Array, s: dict[str, Array], t: int) -> Array:
    s["m"] = 0.9 * s.get("m", 0.0) + g
    return RATE * s["m"]


def rmsprop(g: Array, p: Array, s: dict[str, Array], t: int) -> Array:
    return RATE * g / np.sqrt(ema(s, "v", g**2, 0.9) + 1e-8)


def rmsprop_momentum(g: Array, p: Array, s: dict[str, Array], t: int) -> Array:
    s["m"] = 0.9 * s.get("m", 0.0) + g / np.sqrt(ema(s, "v", g**2, 0.9) + 1e-8)
    return RATE * s["m"]


def adabelief(g: Array, p: Array, s: dict[str, Array], t: int) -> Array:
    m = ema(s, "m", g, 0.9)
    s["v"] = ema(s, "v", (g - m) ** 2, 0.999) + 1e-16  # added at every step, as in the paper
    return RATE * m / (1 - 0.9**t) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-16)


def sm3(b2: float) -> Step:
    def step(g: Array, p: Array, s: dict[str, Array], t: int) -> Array:
        covers = [s.get(f"cover{i}", np.zeros(g.shape[i])) for i in range(g.ndim)]
        broadcast = [c.reshape([-1 if j == i else 1 for j in range(g.ndim)]) for i, c in enumerate(covers)]
        smallest = broadcast[0] if g.ndim == 1 else np.minimum(*broadcast)
        v = b2 * smallest + (1.0 if b2 == 1.0 else 1.0 - b2) * g**2
        for i in range(g.ndim):
            s[f"cover{i}"] = np.max(v, axis=tuple(j for j in range(g.ndim) if j != i))
        return RATE * ema(s, "m", g / np.sqrt(v + 1e-8), 0.9)

    return step


def yogi(g: Array, p: Array, s: dict[str, Array], t: int) -> Array:
    v = s.get("v", np.full_like(g, 1e-6))
    s["v"] = v - 0.001 * np.sign(v - g**2) * g**2
    m = ema(s, "m", g, 0.9, start=1e-6) / (1 - 0.9**t)
    return RATE * m / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-3)


def radam(g: Array, p: Array, s: dict[str, Array], t: int) -> Array:
    m = ema(s, "m", g, 0.9) / (1 - 0.9**t)
    v = ema(s, "v", g**2, 0.999) / (1 - 0.999**t)
    longest = 2 / (1 - 0.999) - 1
    rho = longest - 2 * t * 0.999**t / (1 - 0.999**t)
    if rho < 5.0:
        return RATE * m
    r = np.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
    return RATE * r * m / (np.sqrt(v) + 1e-8)


def lamb(g: Array, p: Array, s: dict[str, Array], t: int) -> Array:
    u = debiased_adam(g, s, t, eps=1e-6)
    return RATE * norm(p) / norm(u) * u


def lars(g: Array, p: Array, s: dict[str, Array], t: int) -> Array:
    s["m"] = 0.9 * s.get("m", 0.0) + RATE * 1e-3 * norm(p) / norm(g) * g
    return s["m"]


def fromage(g: Array, p: Array, s: dict[str, Array], t: int) -> Array:
    return p - (p - RATE * norm(p) / norm(g) * g) / np.sqrt(1 + RATE**2)


def adafactor(g: Array, p: Array, s: dict[str, Array], t: int) -> Array:
    decay = 1 - t**-0.8
    if min(g.shape) >= 128 and g.ndim == 2:
        row = ema(s, "row", np.mean(g**2, axis=1), decay)
        col = ema(s, "col", np.mean(g**2, axis=0), decay)
        v = row[:, None] * col / np.mean(row)
    else:
        v = ema(s, "v", g**2, decay)
    u = g / np.sqrt(v)
    return RATE * max(rms(p), 1e-3) * u / max(1.0, rms(u))


def adagrad(g: Array, p: Array, s: dict[str, Array], t: int) -> Array:
    s["v"] = s.get("v", np.full_like(g, 0.1)) + g**2
    return RATE * g / np.sqrt(s["v"] + 1e-7)


def adam_at(schedule: Callable[[int], float]) -> Step:
    return lambda g, p, s, t: RATE * schedule(t - 1) * debiased_adam(g, s, t, eps=1e-8, eps_root=1e-8)


FORMULAS: dict[str, Step] = {
    "sgd": lambda g, p, s, t: RATE * g,
    "sgdm": sgdm,
    "adam_eps_root": adam_at(lambda step: 1.0),
    "adamw": lambda g, p, s, t: RATE * (debiased_adam(g, s, t, eps=1e-8) + 1e-4 * p),
    "rmsprop": rmsprop,
    "adabelief": adabelief,
    "sm3": sm3(1.0),
    "sm3_beta2_999": sm3(0.999),
    "yogi": yogi,
    "radam": radam,
    "lamb": lamb,
    "lars": lars,
    "fromage": fromage,
    "adafactor": adafactor,
    "adagrad": adagrad,
    "rmsprop_momentum": rmsprop_momentum,
    "adam_sqrt_decay": adam_at(lambda step: min(max(step, 1) / 1000, np.sqrt(1000 / max(step, 1)))),
    "adam_exp_decay": adam_at(lambda step: (1 - 7e-5) ** step),
}


def test_every_tuned_optimizer_has_its_formula() -> None:
    assert set(LEARNING_RATE_TUNED) <= set(FORMULAS)


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_it_is_its_formula(name: str) -> None:
    rng = np.random.default_rng(0)
    params = {key: rng.normal(size=shape) for key, shape in SHAPES.items()}
    # Six is where RAdam's variance estimate begins to count.
    steps = [
        {key: rng.normal(size=shape) * 10.0 ** rng.uniform(-3, 0) for key, shape in SHAPES.items()}
        for _ in range(9)
    ]
    optimizer = BASELINES[name].factory(jnp.float32(RATE), jnp.int32(100))
    update = jax.jit(optimizer.update)
    states: dict[str, dict[str, Array]] = {key: {} for key in SHAPES}
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(single(params))
        for t, grads in enumerate(steps, start=1):
            updates, state = update(single(grads), state, single(params))
            for key in SHAPES:
                expected = -FORMULAS[name](grads[key], params[key], states[key], t)
                error = norm(np.asarray(updates[key], np.float64) - expected)
                assert error <= ROUNDING.get(name, 1e-4) * norm(expected), (key, t)
                params[key] = params[key] + expected


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.001), (1, 0.001), (500, 0.5), (1_000, 1.0), (4_000, 0.5), (100_000, 0.1)]
)
def test_sqrt_decay_by_hand(step: int, expected: float) -> None:
    assert float(sqrt_decay(jnp.int32(step))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (100_000, 0.00091166), (300_000, 7.576989e-10)])
def test_exp_decay_keeps_its_digits_over_long_runs(step: int, expected: float) -> None:
    assert float(exp_decay(jnp.int32(step))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, [1, 1, 1, 1, 1, 1, 1]),
        (0.5, [1, 0.1, 0.5, 0.25, 0.1, 0.5, 0.55]),
        (0.75, [1, 0.01, 0.25, 0.0625, 0.01**0.75, 0.14644661, 0.23180195]),
        (1.0, [1, 0.01, 0, 0, 0.01, 0, 0.1]),
        (2.0, [1, 0.01, 0, 0, 0.01, 0, 0.1]),
    ],
)
def test_schedules_by_hand(progress: float, expected: list[float]) -> None:
    np.testing.assert_allclose(multipliers(jnp.float32(progress)), expected, rtol=1e-6, atol=1e-7)


def test_the_35_settings_are_every_rate_with_every_schedule() -> None:
    settings = [schedule_setting(number) for number in range(NUM_SETTINGS)]
    assert len(set(settings)) == 35
    assert {setting.learning_rate for setting in settings} == {1e-4, 3e-4, 1e-3, 3e-3, 1e-2}
    assert {int(setting.schedule) for setting in settings} == set(range(len(SCHEDULES)))


def test_a_scheduled_adamw_is_its_formula() -> None:
    """Linear decay over ten steps, after seven of them."""
    setting = schedule_setting(3 * len(SCHEDULES) + SCHEDULES.index("linear"))
    assert setting.learning_rate == 3e-3
    rng = np.random.default_rng(0)
    params, grads = rng.normal(size=(4, 3)), rng.normal(size=(7, 4, 3))
    moments: dict[str, Array] = {}
    with jax.numpy_dtype_promotion("standard"):
        optimizer = BASELINES["adamw_schedules"].factory(jax.tree.map(jnp.float32, setting), jnp.int32(10))
        state = optimizer.init(jnp.float32(params))
        update = jax.jit(optimizer.update)
        for t, gradient in enumerate(grads, start=1):
            found, state = update(jnp.float32(gradient), state, jnp.float32(params))
            direction = debiased_adam(gradient, moments, t, eps=1e-8) + 0.01 * params
            expected = -3e-3 * (1 - (t - 1) / 10) * direction
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)
            params = params + expected
