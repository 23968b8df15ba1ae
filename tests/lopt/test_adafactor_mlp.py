"""`adafactor_mlp` against the published network, and what the published network's arrays cannot show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_runs import assert_follows, read_arrays, run
from optimizers import fast_for
from pydantic import ValidationError

from lopt.architectures.adafactor_mlp import FEATURES, AdafactorMlpConfig

SHAPES = {
    "matrix": (6, 5),
    "tied": (4, 2, 4),
    "conv": (3, 2, 5, 4),
    "vector": (7,),
    "scalar": (),
    "single": (1, 1),
}


def theta_of(arrays: dict[str, np.ndarray]) -> Any:
    """The golden file's theta in our layout."""
    at = lambda path: jnp.asarray(arrays[f"theta/{path}"])
    return {
        "network": {name: at(f"nn/~/{name}") for name in ("w0", "b0", "w1", "b1", "w2", "b2")},
        "momentum_decays": at("momentum_decays"),
        "second_moment_decays": at("rms_decays"),
        "factored_decays": at("adafactor_decays"),
    }


def random_theta(config: AdafactorMlpConfig, seed: int = 0, *, decay_size: float = 0.03) -> Any:
    theta = config.build().init_theta(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    decays = {
        name: jnp.asarray(decay_size * rng.standard_normal(value.shape), jnp.float32)
        for name, value in theta.items()
        if name != "network"
    }
    biased = {
        name: value + jnp.asarray(0.3 * rng.standard_normal(value.shape), jnp.float32)
        for name, value in theta["network"].items()
    }
    return {"network": biased, **decays}


def random_params(seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.standard_normal(shape), jnp.float32) for name, shape in SHAPES.items()}


def updates_of(config: AdafactorMlpConfig, theta: Any, params: Any, gradients: list[Any]) -> list[Any]:
    """The updates of every step, the parameters staying where they are."""
    optimizer = config.build().transform(theta, num_steps=len(gradients))
    update, state, out = jax.jit(optimizer.update), optimizer.init(params), []
    for grads in gradients:
        step, state = update(grads, state, params)
        out.append(step)
    return out


def reference_updates(config: AdafactorMlpConfig, theta: Any, params: Any, gradients: list[Any]) -> list[Any]:
    """The same in float64, one tensor at a time, with a trailing feature axis."""
    theta = jax.tree.map(lambda x: np.asarray(x, np.float64), theta)
    moved = lambda start, by: 1.0 - (1.0 - np.asarray(start)) * np.exp(10.0 * by)
    beta_m = moved(config.momentum_decays, theta["momentum_decays"])
    beta_v = moved(config.second_moment_decays, theta["second_moment_decays"])
    beta_f = moved(config.factored_decays, theta["factored_decays"])
    state: dict[str, dict[str, Any]] = {name: {"m": 0.0, "v": 0.0, "row": 0.0, "col": 0.0} for name in params}
    out = []
    for t, grads in enumerate(gradients):
        step = {}
        for name, s in state.items():
            p = np.atleast_1d(np.asarray(params[name], np.float64))[..., None]
            g = np.atleast_1d(np.asarray(grads[name], np.float64))[..., None]
            s["m"] = beta_m * s["m"] + (1 - beta_m) * g
            s["v"] = beta_v * s["v"] + (1 - beta_v) * g**2
            squared = g**2 + 1e-30
            if p.ndim > 2:
                *_, second, largest = np.argsort(p.shape[:-1], kind="stable")
                s["row"] = beta_f * s["row"] + (1 - beta_f) * squared.mean(axis=largest, keepdims=True)
                s["col"] = beta_f * s["col"] + (1 - beta_f) * squared.mean(axis=second, keepdims=True)
                relative = s["row"] / (s["row"].mean(axis=second, keepdims=True) + 1e-9)
                factor = np.maximum(relative, 1e-9) ** -0.5 * np.maximum(s["col"], 1e-9) ** -0.5
                factored_gradient, factored_momentum = g * factor, s["m"] * factor
            else:
                s["row"] = beta_f * s["row"] + (1 - beta_f) * squared
                s["col"] = s["row"]
                factored_gradient = g * np.maximum(s["row"] + 1e-9, 1e-9) ** -0.5
                factored_momentum = s["m"] * (s["row"] + 1e-6) ** -0.5
            root = (s["v"] + 1e-6) ** -0.5
            features = [g, p, s["m"], s["v"], s["m"] * root, root, factored_gradient, s["row"], s["col"]]
            features += [(s["row"] + 1e-8) ** -0.5, (s["col"] + 1e-8) ** -0.5, factored_momentum]
            full = lambda x, p=p: np.broadcast_to(x, (*p.shape[:-1], x.shape[-1]))
            x = np.concatenate([full(f) for f in features], axis=-1)
            x = x / np.sqrt(1e-5 + np.mean(x**2, axis=tuple(range(x.ndim - 1)), keepdims=True))
            time = np.tanh(t / np.asarray(config.iteration_timescales) - 1.0)
            x = np.concatenate([x, np.broadcast_to(time, (*x.shape[:-1], time.size))], axis=-1)
            for i in range(config.hidden_layers + 1):
                x = np.maximum(x, 0.0) if i else x
                x = x @ theta["network"][f"w{i}"] + theta["network"][f"b{i}"]
            move = -config.step_mult * x[..., 0] * np.exp(config.exp_mult * x[..., 1])
            step[name] = move.reshape(np.shape(params[name]))
        out.append(step)
    return out


def assert_close(mine: list[Any], reference: list[Any], *, tolerance: float) -> None:
    """Asserts ‖mine − reference‖ ≤ tolerance · ‖reference‖ for every step and tensor."""
    for t, (a, b) in enumerate(zip(mine, reference, strict=True)):
        for name in b:
            error = np.linalg.norm(np.asarray(a[name], np.float64) - b[name])
            assert error <= tolerance * np.linalg.norm(b[name]), f"{name} at update {t}: off by {error:.3g}"


def gradients_like(params: Any, kind: str, num_steps: int = 5) -> list[Any]:
    rng = np.random.default_rng(7)
    scales = {
        "plain": [1.0],
        "large": [1e5, 1.0],
        "zero then small": [0.0, 0.0, 1e-3],
        "spike": [1e-3, 1e4, 1e-3],
    }
    out = []
    for t in range(num_steps):
        scale = scales.get(kind, [1.0])
        grads = {name: scale[t % len(scale)] * rng.standard_normal(p.shape) for name, p in params.items()}
        if kind == "zero rows":
            grads = {name: g * (np.arange(g.size).reshape(g.shape) % 3 > 0) for name, g in grads.items()}
            grads["matrix"][2], grads["conv"][..., 1, :] = 0.0, 0.0
        out.append({name: jnp.asarray(g, jnp.float32) for name, g in grads.items()})
    return out


@pytest.mark.parametrize(
    "config", [AdafactorMlpConfig(), AdafactorMlpConfig.released()], ids=["default", "released"]
)
def test_follows_the_published_network(golden: Path, config: AdafactorMlpConfig) -> None:
    arrays = read_arrays(golden, "b_adafac_mlp.npz")
    assert_follows(run(config.build().transform(theta_of(arrays), num_steps=50), arrays), arrays)


def test_follows_the_published_network_with_large_steps(golden: Path) -> None:
    theta = theta_of(read_arrays(golden, "b_adafac_mlp.npz"))
    arrays = read_arrays(golden, "b_adafac_mlp_bigstep.npz")
    learned = AdafactorMlpConfig.released(step_mult=0.1, exp_mult=0.1).build()
    assert_follows(run(learned.transform(theta, num_steps=50), arrays), arrays)


@pytest.mark.parametrize("kind", ["plain", "large", "zero then small", "spike", "zero rows"])
def test_equals_a_float64_reference(kind: str) -> None:
    config = AdafactorMlpConfig(step_mult=0.5, exp_mult=0.3)
    theta, params = random_theta(config), random_params()
    gradients = gradients_like(params, kind)
    mine = updates_of(config, theta, params, gradients)
    assert_close(mine, reference_updates(config, theta, params, gradients), tolerance=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            AdafactorMlpConfig(hidden_size=7, hidden_layers=1, iteration_timescales=(2.0,)),
            id="one layer",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            AdafactorMlpConfig(
                hidden_size=3, hidden_layers=3, momentum_decays=(0.5, 0.8), factored_decays=(0.7, 0.95)
            ),
            id="three layers",
            marks=pytest.mark.slow,
        ),
        pytest.param(AdafactorMlpConfig(hidden_size=20), id="wide"),
    ],
)
def test_other_sizes_equal_the_reference(config: AdafactorMlpConfig) -> None:
    theta, params = random_theta(config, seed=3), random_params(1)
    gradients = gradients_like(params, "plain", 3)
    mine = updates_of(config, theta, params, gradients)
    assert_close(mine, reference_updates(config, theta, params, gradients), tolerance=3e-5)


def test_theta_moves_the_decays() -> None:
    """1 − β = (1 − β₀)·exp(10·theta), and an accumulator's first value is (1 − β) times what it averages."""
    config = AdafactorMlpConfig()
    theta = config.build().init_theta(jax.random.key(0))
    theta["momentum_decays"] = jnp.asarray([0.0, 0.1, -0.1])
    theta["second_moment_decays"] = jnp.asarray([0.2])
    theta["factored_decays"] = jnp.asarray([-0.2, 0.0, 0.3])
    optimizer = config.build().transform(theta, num_steps=3)
    params = {"w": jnp.ones((3, 2))}
    _, state = optimizer.update({"w": 2.0 * params["w"]}, optimizer.init(params), params)
    (acc,) = state.accumulators
    e = np.e
    momenta = [m[0, 0, 0] for m in acc.momenta]
    np.testing.assert_allclose(momenta, [2 * 0.1, 2 * 0.01 * e, 2 * 0.001 / e], rtol=2e-4)
    np.testing.assert_allclose(acc.second_moments[0][0, 0, 0], 4 * 0.001 * e**2, rtol=2e-4)
    rows = [v.row[0, 0, 0] for v in acc.factored]
    np.testing.assert_allclose(rows, [4 * 0.1 / e**2, 4 * 0.01, 4 * 0.001 * e**3], rtol=2e-4)


def test_a_momentum_decay_below_zero_is_the_releases_only() -> None:
    params, grads = {"w": jnp.ones((3, 2))}, {"w": jnp.full((3, 2), 2.0)}

    def first_momentum(config: AdafactorMlpConfig) -> float:
        theta = config.build().init_theta(jax.random.key(0))
        theta["momentum_decays"] = jnp.asarray([0.3, 0.0, 0.0])  # 1 − 0.1·e³ = −1.0086
        optimizer = config.build().transform(theta, num_steps=3)
        _, state = optimizer.update(grads, optimizer.init(params), params)
        return float(state.accumulators[0].momenta[0][0, 0, 0])

    assert first_momentum(AdafactorMlpConfig()) == 2.0
    np.testing.assert_allclose(first_momentum(AdafactorMlpConfig.released()), 2 * 0.1 * np.e**3, rtol=1e-4)


@pytest.mark.slow
def test_gradients_are_bounded_only_where_the_release_overflows() -> None:
    params = {name: p for name, p in random_params().items() if name in ("matrix", "vector", "scalar")}
    theta = random_theta(AdafactorMlpConfig())
    for size, is_same in ((1e12, True), (1e20, False)):
        gradients = [jax.tree.map(lambda p: size * p, params)] * 3  # noqa: B023
        mine = updates_of(AdafactorMlpConfig(), theta, params, gradients)
        theirs = updates_of(AdafactorMlpConfig.released(), theta, params, gradients)
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
            assert bool(jnp.all(jnp.isfinite(a)))
            assert is_same == bool(jnp.all(jnp.isfinite(b)))
            if is_same:
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", fast_for("momentum", "iteration", among=[*FEATURES, "iteration"]))
def test_an_ablation_is_a_network_that_ignores_the_feature(name: str) -> None:
    """Leaving a feature out equals zeros in its rows of the first layer."""
    whole = AdafactorMlpConfig(step_mult=0.5)
    if name == "iteration":
        ablated = AdafactorMlpConfig(step_mult=0.5, iteration_timescales=())
        kept = np.arange(whole.num_inputs) < 28
    else:
        ablated = AdafactorMlpConfig(step_mult=0.5, features=tuple(f for f in FEATURES if f != name))
        sizes = {
            **dict.fromkeys(FEATURES, 3),
            "gradient": 1,
            "param": 1,
            "second_moment": 1,
            "inverse_root": 1,
        }
        owner = np.repeat([*FEATURES, "iteration"], [*(sizes[f] for f in FEATURES), 11])
        kept = owner != name
    assert ablated.num_inputs == kept.sum() < whole.num_inputs
    theta = random_theta(whole)
    network = theta["network"]
    zeroed = {**theta, "network": {**network, "w0": network["w0"] * kept[:, None].astype(np.float32)}}
    cut = {**theta, "network": {**network, "w0": network["w0"][np.flatnonzero(kept)]}}
    params = {"w": random_params()["matrix"], "b": random_params()["vector"]}
    gradients = gradients_like(params, "plain", 2)
    mine = updates_of(ablated, cut, params, gradients)
    assert_close(mine, updates_of(whole, zeroed, params, gradients), tolerance=1e-5)


@pytest.mark.slow
def test_tensors_of_one_shape_do_not_see_each_other() -> None:
    config = AdafactorMlpConfig(step_mult=0.5)
    theta, rng = random_theta(config), np.random.default_rng(0)
    params = {name: jnp.asarray(rng.standard_normal((4, 3)), jnp.float32) for name in "abc"}
    gradients = [
        {name: (i + 1) * 10.0**t * p for i, (name, p) in enumerate(params.items())} for t in range(3)
    ]
    together = updates_of(config, theta, params, gradients)
    for name in params:
        alone = updates_of(config, theta, {name: params[name]}, [{name: g[name]} for g in gradients])
        assert_close(alone, [{name: u[name]} for u in together], tolerance=1e-5)


def test_a_bfloat16_state_is_half_as_large_and_steps_nearly_the_same() -> None:
    params = {"w": jnp.asarray(np.random.default_rng(0).standard_normal((64, 64)), jnp.float32)}
    exact, low = AdafactorMlpConfig(), AdafactorMlpConfig(state_dtype="bfloat16")
    size = lambda c: sum(
        leaf.nbytes for leaf in jax.tree.leaves(c.build().transform(None, num_steps=1).init(params))
    )
    assert size(low) < 0.55 * size(exact)
    theta, gradients = random_theta(exact), gradients_like(params, "plain", 4)
    assert_close(
        updates_of(low, theta, params, gradients), updates_of(exact, theta, params, gradients), tolerance=0.02
    )


def test_an_empty_tree_is_left_alone() -> None:
    config = AdafactorMlpConfig()
    assert updates_of(config, random_theta(config), {}, [{}, {}]) == [{}, {}]


def test_the_number_of_steps_is_checked_though_not_read() -> None:
    learned = AdafactorMlpConfig().build()
    with pytest.raises(ValueError, match="`num_steps` must be the number of updates"):
        learned.transform(learned.init_theta(jax.random.key(0)), num_steps=0)
    theta, params = random_theta(learned.config), {"w": jnp.ones((3, 2))}
    steps = []
    for num_steps in (1, 10_000):
        optimizer = learned.transform(theta, num_steps=num_steps)
        steps.append(optimizer.update(params, optimizer.init(params), params)[0]["w"])
    np.testing.assert_array_equal(*steps)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": ()}, "feature must be named once, and at least one"),
        ({"features": ("gradient", "gradient")}, "must be named once"),
        ({"features": ("momentums",)}, "Did you mean 'momentum'"),
        ({"momentum_decays": (0.9, 0.99)}, "equally many, got 2 and 3"),
        ({"momentum_decays": (0.9, 0.99, 1.0)}, "less than 1"),
        ({"iteration_timescales": (0.0,)}, "greater than 0"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ValidationError, KeyError), match=message):
        AdafactorMlpConfig(**fields)
