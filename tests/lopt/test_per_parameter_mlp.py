"""`per_parameter_mlp` against the published network, and what the published network's arrays cannot show."""

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

from lopt.architectures.per_parameter_mlp import CHUNK_SIZE, PerParameterMlpConfig
from lopt.features.adam_terms import ADAM_TERMS
from lopt.features.stacks import Stack
from lopt.rules.per_parameter_network import DenseLayer, narrow_mlp, wide_mlp

SHAPES = {"matrix": (6, 5), "deep": (3, 2, 5, 4), "vector": (7,), "scalar": (), "single": (1, 1)}
IMPATIENT = {"step_mult": 0.5, "exp_mult": 0.3}


def theta_of(arrays: dict[str, np.ndarray]) -> Any:
    """The golden file's theta in our layout."""
    return {
        f"{kind}{i}": jnp.asarray(arrays[f"theta/mlp/~/linear_{i}/{kind}"])
        for i in range(3)
        for kind in ("w", "b")
    }


def random_theta(config: PerParameterMlpConfig, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    theta = config.build().init_theta(jax.random.key(seed))
    return jax.tree.map(lambda x: x + jnp.asarray(0.3 * rng.standard_normal(x.shape), jnp.float32), theta)


def random_params(shapes: dict[str, tuple[int, ...]] = SHAPES, seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}


def updates_of(config: PerParameterMlpConfig, theta: Any, params: Any, gradients: list[Any]) -> list[Any]:
    """The updates of every step, the parameters staying where they are."""
    optimizer = config.build().transform(theta, num_steps=len(gradients))
    update, state, out = jax.jit(optimizer.update), optimizer.init(params), []
    for grads in gradients:
        step, state = update(grads, state, params)
        out.append(step)
    return out


def reference_updates(
    config: PerParameterMlpConfig, theta: Any, params: Any, gradients: list[Any]
) -> list[Any]:
    """The same in float64, one tensor at a time, with a trailing feature axis."""
    theta = jax.tree.map(lambda x: np.asarray(x, np.float64), theta)
    beta = np.asarray(config.decays, np.float32).astype(np.float64)
    state: dict[str, dict[str, Any]] = {name: {"m": 0.0, "v": 0.0} for name in params}
    out = []
    for t, grads in enumerate(gradients):
        step = {}
        for name, s in state.items():
            p = np.atleast_1d(np.asarray(params[name], np.float64))[..., None]
            g = np.atleast_1d(np.asarray(grads[name], np.float64))[..., None]
            s["m"] = beta * s["m"] + (1 - beta) * g
            s["v"] = beta * s["v"] + (1 - beta) * g**2
            root = (s["v"] + 1e-6) ** -0.5
            groups = {"gradient": g, "param": p, "momentum": s["m"], "second_moment": s["v"]}
            groups |= {
                "scaled_momentum": root * s["m"],
                "inverse_root": root,
                "log_param": np.log(abs(p) + 1e-8),
            }
            x = np.concatenate([groups[feature] for feature in config.features], axis=-1)
            x = x / np.sqrt(1e-5 + np.mean(x**2, axis=tuple(range(x.ndim - 1)), keepdims=True))
            time = np.tanh(t / np.asarray(config.iteration_timescales) - 1.0)
            x = np.concatenate([x, np.broadcast_to(time, (*x.shape[:-1], time.size))], axis=-1)
            for i in range(config.hidden_layers + 1):
                x = np.maximum(x, 0.0) if i else x
                x = x @ theta[f"w{i}"] + theta[f"b{i}"]
            move = -config.step_mult * x[..., 0] * np.exp(config.exp_mult * x[..., 1])
            step[name] = move.reshape(np.shape(params[name]))
        out.append(step)
    return out


def assert_close(mine: list[Any], reference: list[Any], *, tolerance: float) -> None:
    """Asserts ‖mine − reference‖ ≤ tolerance · ‖reference‖ for every step and tensor.

    With a floor of three float32 roundings of 1 per number: a step is a sum over 32 units of terms of that size,
    and where they cancel, its last bits depend on the order in which a processor adds them (√32 half roundings).
    """
    for t, (a, b) in enumerate(zip(mine, reference, strict=True)):
        for name in b:
            error = np.linalg.norm(np.asarray(a[name], np.float64) - b[name])
            floor = 3 * np.finfo(np.float32).eps * np.sqrt(b[name].size)
            bound = max(tolerance * np.linalg.norm(b[name]), floor)
            assert error <= bound, f"{name} at update {t}: off by {error:.3g}"


def gradients_like(params: Any, kind: str, num_steps: int = 4) -> list[Any]:
    rng = np.random.default_rng(7)
    scales = {
        "plain": [1.0],
        "large": [1e5, 1.0],
        "zero then small": [0.0, 0.0, 1e-3],
        "spike": [1e-3, 1e4, 1e-3],
    }
    scale = scales.get(kind, [1.0])
    out = []
    for t in range(num_steps):
        grads = {name: scale[t % len(scale)] * rng.standard_normal(p.shape) for name, p in params.items()}
        if kind == "zero rows":
            grads = {name: g * (np.arange(g.size).reshape(g.shape) % 3 > 0) for name, g in grads.items()}
            grads["matrix"][2] = 0.0
        out.append({name: jnp.asarray(g, jnp.float32) for name, g in grads.items()})
    return out


@pytest.mark.parametrize("max_gradient", [None, 1e15])
def test_follows_the_published_network(golden: Path, max_gradient: float | None) -> None:
    arrays = read_arrays(golden, "b_mlp.npz")
    learned = PerParameterMlpConfig.released(max_gradient=max_gradient).build()
    assert_follows(run(learned.transform(theta_of(arrays), num_steps=50), arrays), arrays)


def test_the_papers_network_has_31_inputs_and_the_releases_19() -> None:
    paper, released = PerParameterMlpConfig(), PerParameterMlpConfig.released()
    shapes = lambda c: [x.shape for x in jax.tree.leaves(c.build().init_theta(jax.random.key(0)))]
    assert (paper.num_inputs, released.num_inputs) == (31, 19)
    assert shapes(paper) == [(32,), (2,), (31, 32), (32, 2)]
    assert shapes(released) == [(32,), (32,), (2,), (19, 32), (32, 32), (32, 2)]


@pytest.mark.parametrize("kind", ["plain", "large", "zero then small", "spike", "zero rows"])
@pytest.mark.parametrize(
    "config",
    [PerParameterMlpConfig(**IMPATIENT), PerParameterMlpConfig.released(**IMPATIENT)],
    ids=["paper", "released"],
)
def test_equals_a_float64_reference(config: PerParameterMlpConfig, kind: str) -> None:
    theta, params = random_theta(config), random_params()
    gradients = gradients_like(params, kind)
    mine = updates_of(config, theta, params, gradients)
    assert_close(mine, reference_updates(config, theta, params, gradients), tolerance=1e-5)


def test_other_sizes_equal_the_reference() -> None:
    config = PerParameterMlpConfig(
        features=("inverse_root", "scaled_momentum", "param"),
        decays=(0.0, 0.7),
        iteration_timescales=(2.0,),
        hidden_size=5,
        hidden_layers=3,
        **IMPATIENT,
    )
    theta, params = random_theta(config, seed=3), random_params(seed=1)
    gradients = gradients_like(params, "plain")
    mine = updates_of(config, theta, params, gradients)
    assert_close(mine, reference_updates(config, theta, params, gradients), tolerance=1e-5)


def test_tensors_that_are_cut_into_pieces_equal_the_reference() -> None:
    """A piece of one tensor, a piece of several tensors, and a length that cannot be cut."""
    large = 2 * CHUNK_SIZE // 128
    prime = 17_393
    assert prime > CHUNK_SIZE
    shapes = {"large": (large, 128), "prime": (prime,), **{f"many{i}": (50, 100) for i in range(6)}}
    config = PerParameterMlpConfig(**IMPATIENT)
    theta, params = random_theta(config), random_params(shapes)
    gradients = [
        {name: (1 + i) * g for i, (name, g) in enumerate(grads.items())}
        for grads in gradients_like(params, "plain", 2)
    ]
    mine = updates_of(config, theta, params, gradients)
    assert_close(mine, reference_updates(config, theta, params, gradients), tolerance=1e-5)


def test_only_accumulators_that_a_feature_needs_are_kept() -> None:
    params = {"w": jnp.zeros((3, 2))}

    def kept(*features: str) -> tuple[int, int]:
        config = PerParameterMlpConfig(features=features)
        (acc,) = config.build().transform(None, num_steps=1).init(params).accumulators
        return len(acc.momenta), len(acc.second_moments)

    assert kept(*ADAM_TERMS) == (5, 5)
    assert kept("gradient", "param", "momentum") == (5, 0)
    assert kept("gradient", "inverse_root") == (0, 5)
    assert kept("scaled_momentum") == (5, 5)
    assert kept("gradient", "param") == (0, 0)


RMS = ("second_moment", "inverse_root", "scaled_momentum")
ABLATIONS = {
    "No RMS": RMS,
    "No Mom": ("momentum", "scaled_momentum"),
    "Only Grads": ("momentum", *RMS),
    "No Time": ("iteration",),
}


@pytest.mark.parametrize("name", fast_for("No Time", among=list(ABLATIONS)))
def test_an_ablation_is_a_network_that_ignores_the_features(name: str) -> None:
    """Leaving features out equals zeros in their rows of the first layer."""
    left_out = ABLATIONS[name]
    whole = PerParameterMlpConfig(step_mult=0.5)
    timescales = () if "iteration" in left_out else whole.iteration_timescales
    ablated = PerParameterMlpConfig(
        step_mult=0.5,
        features=tuple(f for f in ADAM_TERMS if f not in left_out),
        iteration_timescales=timescales,
    )
    sizes = [1 if f in ("gradient", "param") else 5 for f in ADAM_TERMS]
    kept = ~np.isin(np.repeat([*ADAM_TERMS, "iteration"], [*sizes, 9]), left_out)
    assert ablated.num_inputs == kept.sum() < whole.num_inputs
    theta = random_theta(whole)
    zeroed = {**theta, "w0": theta["w0"] * kept[:, None].astype(np.float32)}
    cut = {**theta, "w0": theta["w0"][np.flatnonzero(kept)]}
    params = {"w": random_params()["matrix"], "b": random_params()["vector"]}
    gradients = gradients_like(params, "plain", 2)
    mine = updates_of(ablated, cut, params, gradients)
    assert_close(mine, updates_of(whole, zeroed, params, gradients), tolerance=1e-5)


def test_gradients_are_bounded_only_where_the_release_overflows() -> None:
    params = random_params({"matrix": (6, 5), "scalar": ()})
    config = PerParameterMlpConfig()
    unbounded = PerParameterMlpConfig(max_gradient=None)
    theta = random_theta(config)
    for size, is_same in ((1e12, True), (1e20, False)):
        gradients = [jax.tree.map(lambda p: size * p, params)] * 3  # noqa: B023
        mine, theirs = (updates_of(c, theta, params, gradients) for c in (config, unbounded))
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
            assert bool(jnp.all(jnp.isfinite(a)))
            assert is_same == bool(jnp.all(jnp.isfinite(b)))
            if is_same:
                np.testing.assert_array_equal(a, b)


def test_a_bfloat16_state_is_half_as_large_and_steps_nearly_the_same() -> None:
    params = random_params({"w": (64, 64)})
    exact, low = PerParameterMlpConfig(), PerParameterMlpConfig(state_dtype="bfloat16")
    size = lambda c: sum(
        leaf.nbytes for leaf in jax.tree.leaves(c.build().transform(None, num_steps=1).init(params))
    )
    assert size(low) < 0.51 * size(exact)
    theta, gradients = random_theta(exact), gradients_like(params, "plain")
    mine, reference = (updates_of(c, theta, params, gradients) for c in (low, exact))
    assert_close(mine, reference, tolerance=0.02)


def test_an_empty_tree_is_left_alone() -> None:
    config = PerParameterMlpConfig()
    assert updates_of(config, random_theta(config), {}, [{}, {}]) == [{}, {}]


def test_the_number_of_steps_is_checked_though_not_read() -> None:
    learned = PerParameterMlpConfig().build()
    theta, params = random_theta(learned.config), {"w": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match="`num_steps` must be the number of updates"):
        learned.transform(theta, num_steps=2.5)
    steps = []
    for num_steps in (1, 10_000):
        optimizer = learned.transform(theta, num_steps=num_steps)
        steps.append(optimizer.update(params, optimizer.init(params), params)[0]["w"])
    np.testing.assert_array_equal(*steps)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": ()}, "feature must be named once, and at least one"),
        ({"features": ("param", "param")}, "must be named once"),
        ({"features": ("momenta",)}, "Did you mean 'momentum'"),
        ({"decays": ()}, "at least 1 item"),
        ({"decays": (0.9, 1.0)}, "less than 1"),
        ({"iteration_timescales": (-1.0,)}, "greater than 0"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ValidationError, KeyError), match=message):
        PerParameterMlpConfig(**fields)


def test_a_wide_network_is_the_narrow_one_by_other_means() -> None:
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    stack = Stack(shape=(4, 5), members=(0, 1, 2), rows=(0, 1, 2))
    features, scales = [draw(3, 4, 5) for _ in range(6)], jnp.abs(draw(3, 6))
    layers = [
        DenseLayer(draw(6, 8), draw(8)),
        DenseLayer(draw(8, 8), draw(8)),
        DenseLayer(draw(8, 2), draw(2)),
    ]
    wide, narrow = wide_mlp(layers)(features, scales), narrow_mlp(stack, layers, features, scales=scales)
    for a, b in zip(wide, narrow, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
