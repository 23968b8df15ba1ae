"""`celo2` against the released transformation, and what the released arrays cannot show."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from celo2_reference import Celo2Reference
from celo2_runs import FEW, SHAPES, VARIANTS, first_update, noisy_theta, normal, program, rms
from golden_runs import assert_follows, leaves, read_arrays, run
from optimizers import fast_for

from lopt.architectures.celo2 import Celo2, Celo2Config
from lopt.rules.celo2 import VECTOR_FEATURES, warmup_cosine


def theta_of(arrays: dict[str, np.ndarray]) -> Any:
    """The golden file's theta in our layout."""
    at = lambda name: jnp.asarray(arrays[f"theta/ff_mod_stack/~/{name}"])
    network = {name: at(name) for name in ("b0", "w1", "b1", "w2", "b2")}
    return {"network": {**network, "w0": jnp.concatenate([at(f"w0__{i}") for i in range(14)])}}


def with_zero_rows(grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    out = {name: g.copy() for name, g in grads.items()}
    for name in ("tall", "wide", "conv"):
        out[name][..., 1, :] = 0.0
        out[name][..., :, 2] = 0.0
    out["bias"][1] = 0.0
    return out


GRADIENTS: dict[str, Callable[[dict[str, np.ndarray], int], dict[str, np.ndarray]]] = {
    "mixed": lambda g, t: {k: v * np.float32(10.0 ** (t % 5 - 3)) for k, v in g.items()},
    "zero": lambda g, t: {k: np.zeros_like(v) for k, v in g.items()},
    "zero later": lambda g, t: {k: v * np.float32(t < 3) for k, v in g.items()},
    "1e5": lambda g, t: {k: v * np.float32(1e5) for k, v in g.items()},
    "1e-7": lambda g, t: {k: v * np.float32(1e-7) for k, v in g.items()},
    "zero rows": lambda g, t: with_zero_rows(g),
}


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_follows_the_released_transformation(golden: Path, name: str) -> None:
    arrays = read_arrays(golden, f"{name}.npz")
    optimizer = Celo2Config.released(VARIANTS[name]).build().transform(theta_of(arrays), num_steps=50)
    assert_follows(run(optimizer, arrays, scale=-0.01), arrays, tolerance=1e-5)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_reference_follows_the_released_transformation(golden: Path, name: str) -> None:
    arrays = read_arrays(golden, f"{name}.npz")
    weights = jax.tree.map(np.asarray, theta_of(arrays))["network"]
    for leaf, released in leaves(arrays, "update").items():
        orthogonalized = VARIANTS[name] == "orthogonalized"
        reference = Celo2Reference(released.shape[1:], weights, orthogonalized=orthogonalized)
        for t, update in enumerate(released):
            mine = reference.direction(arrays[f"params/{leaf}"][t], arrays[f"grads/{leaf}"][t])
            assert rms(mine - update) < 1e-5, (leaf, t)


@cache
def released(variant: Any) -> tuple[Any, Any, Any]:
    """Theta, `init` and the compiled `update` of a network of other sizes than the golden one's."""
    learned = Celo2Config.released(variant, hidden_size=5, hidden_layers=3).build()
    theta = noisy_theta(learned)
    optimizer = learned.transform(theta, num_steps=50)
    return theta, optimizer.init, jax.jit(optimizer.update)


@pytest.mark.parametrize("kind", GRADIENTS)
@pytest.mark.parametrize("variant", fast_for("normalized", among=list(VARIANTS.values())))
def test_directions_are_those_of_the_reference(variant: Any, kind: str) -> None:
    theta, init, update = released(variant)
    rng = np.random.default_rng(7)
    params = normal(SHAPES, rng)
    weights = jax.tree.map(np.asarray, theta["network"])
    references = {
        name: Celo2Reference(shape, weights, orthogonalized=variant == "orthogonalized")
        for name, shape in SHAPES.items()
    }
    state = init(params)
    for t in range(6):
        grads = GRADIENTS[kind](normal(SHAPES, rng), t)
        updates, state = update(grads, state, params)
        for name, reference in references.items():
            expected = reference.direction(params[name], grads[name])
            assert rms(updates[name] - expected) <= 1e-4 * rms(expected), (name, t)
            assert rms(expected) == pytest.approx(1.0, rel=1e-3)  # so the zero gradient's step is one, too
        params = {name: params[name] - 0.01 * np.asarray(updates[name]) for name in SHAPES}


@pytest.mark.parametrize("variant", fast_for("normalized", among=list(VARIANTS.values())))
def test_by_default_a_zero_gradient_makes_no_step(variant: Any) -> None:
    learned = Celo2Config(variant=variant).build()
    params, theta = normal(SHAPES, np.random.default_rng(1)), noisy_theta(learned)
    init, update = program(learned)
    state = init(theta, 20, params)
    for _ in range(3):
        updates, state = update(theta, 20, jax.tree.map(np.zeros_like, params), state, params)
        assert all(not np.any(u) for u in updates.values())
    updates, _ = update(theta, 20, params, state, params)
    assert all(np.all(np.asarray(u) != 0) for u in updates.values())


@pytest.mark.parametrize("variant", fast_for("normalized", among=list(VARIANTS.values())))
def test_by_default_zero_rows_stay_and_the_others_step_as_long_as_ever(variant: Any) -> None:
    learned = Celo2Config(variant=variant, learning_rate=0.5, warmup_fraction=0.0).build()
    rng = np.random.default_rng(2)
    params, theta = normal(SHAPES, rng), noisy_theta(learned)
    init, update = program(learned)
    state = init(theta, 10**6, params)
    for _ in range(3):
        grads = with_zero_rows(normal(SHAPES, rng))
        updates, state = update(theta, 10**6, grads, state, params)
        for name in ("tall", "wide", "conv"):
            np.testing.assert_array_equal(np.asarray(updates[name]) == 0, grads[name] == 0)
            steps = np.where(grads[name] == 0, np.nan, np.asarray(updates[name], np.float64))
            lengths = np.sqrt(np.nanmean(np.square(steps), axis=(-2, -1)))
            np.testing.assert_allclose(lengths, 0.5, rtol=1e-3)


def test_a_gradient_whose_square_underflows_still_counts() -> None:
    learned = Celo2Config().build()
    params = {"w": jnp.ones((4, 5))}
    update = first_update(learned, noisy_theta(learned), params, {"w": jnp.full((4, 5), 1e-25)})
    assert np.all(np.asarray(update["w"]) != 0)


def test_the_learning_rate_rises_linearly_and_falls_along_a_cosine() -> None:
    config = Celo2Config(learning_rate=0.02, warmup_fraction=0.2, final_fraction=0.1)
    learned = config.build()
    params = {"w": jnp.linspace(-1.0, 2.0, 12).reshape(4, 3)}
    theta, (init, update) = noisy_theta(learned), program(learned)
    state, lengths = init(theta, 20, params), []
    for _ in range(22):
        updates, state = update(theta, 20, {"w": params["w"] - 0.3}, state, params)
        lengths.append(rms(updates["w"]))
    half_cosine = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min((t - 4) / 16, 1.0))) for t in range(4, 22)]
    expected = 0.02 * np.asarray([0.25, 0.5, 0.75, 1.0, *half_cosine])
    np.testing.assert_allclose(lengths, expected, rtol=1e-3)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 1000])
def test_no_step_of_a_run_has_learning_rate_zero(num_steps: int) -> None:
    steps = jnp.arange(num_steps)
    schedule = jax.vmap(
        lambda t: warmup_cosine(t, jnp.float32(num_steps), warmup_fraction=0.05, final_fraction=0.0)
    )
    rates = np.asarray(schedule(steps))
    assert rates.min() > 0
    assert rates.max() == pytest.approx(1.0, abs=1e-6)


def test_the_update_is_minus_the_learning_rate_times_the_direction() -> None:
    params = normal(FEW, np.random.default_rng(3))
    grads = normal(FEW, np.random.default_rng(4))
    config = Celo2Config(learning_rate=0.25, warmup_fraction=0.0, weight_decay=0.5)
    theta = noisy_theta(config.build())
    update = first_update(config.build(), theta, params, grads)
    plain = first_update(Celo2Config(output="direction").build(), theta, params, grads)
    for name in FEW:
        np.testing.assert_allclose(
            update[name], -0.25 * (plain[name] + 0.5 * params[name]), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("left_out", fast_for("row", among=["param", "momentum", "row", "factored_momentum"]))
def test_leaving_a_feature_out_is_giving_it_weight_zero(left_out: str) -> None:
    full = Celo2Config()
    sizes = {"param": (2, 3), "momentum": (3, 6), "row": (15, 18), "factored_momentum": (27, 30)}
    rows = np.arange(*sizes[left_out])
    theta = noisy_theta(full.build())
    without = Celo2Config(features=tuple(name for name in full.features if name != left_out))
    w0 = theta["network"]["w0"]
    params = normal(FEW, np.random.default_rng(5))
    grads = normal(FEW, np.random.default_rng(6))
    zeroed = {"network": {**theta["network"], "w0": w0.at[rows].set(0.0)}}
    shorter = {"network": {**theta["network"], "w0": jnp.delete(w0, rows, axis=0)}}
    expected = first_update(full.build(), zeroed, params, grads)
    update = first_update(without.build(), shorter, params, grads)
    for name in FEW:
        np.testing.assert_allclose(update[name], expected[name], rtol=1e-4, atol=1e-8)


@pytest.mark.slow
def test_without_factored_features_a_tensor_is_a_stack_of_matrices() -> None:
    config = Celo2Config.released("orthogonalized", features=VECTOR_FEATURES[:7])
    learned = config.build()
    theta = noisy_theta(learned)
    for shape in ((5, 2, 3), (3, 16, 20)):  # smaller and larger than the first layer's weights
        params = jax.random.normal(jax.random.key(0), shape)
        grads = jax.random.normal(jax.random.key(1), shape) * jnp.arange(1.0, shape[0] + 1).reshape(-1, 1, 1)
        whole = first_update(learned, theta, {"w": params}, {"w": grads})["w"]
        for i in range(shape[0]):
            one = first_update(learned, theta, {"w": params[i]}, {"w": grads[i]})["w"]
            np.testing.assert_allclose(whole[i], one, rtol=1e-4, atol=1e-5)


def test_vectors_do_not_see_the_features_of_rows_and_columns() -> None:
    learned = Celo2Config().build()
    theta = noisy_theta(learned)
    changed = {"network": {**theta["network"], "w0": theta["network"]["w0"].at[15:].add(1.0)}}
    params = normal(SHAPES, np.random.default_rng(8))
    grads = normal(SHAPES, np.random.default_rng(9))
    before, after = (first_update(learned, t, params, grads) for t in (theta, changed))
    for name, shape in SHAPES.items():
        assert np.array_equal(before[name], after[name]) == (len(shape) < 2), name


def test_the_sign_of_the_gradient_is_the_sign_of_the_direction_where_the_network_passes_it_on() -> None:
    network = Celo2Config().build().init_theta(jax.random.key(0))["network"]
    weights = {name: jnp.zeros_like(w) for name, w in network.items()}
    weights["w0"] = weights["w0"].at[0, :2].set(jnp.asarray([1.0, -1.0]))
    weights["w1"] = weights["w1"].at[0, 0].set(1.0).at[1, 1].set(1.0)
    weights["w2"] = weights["w2"].at[0, 0].set(1.0).at[1, 0].set(-1.0)
    grads = {"w": jnp.asarray([[3.0, -4.0], [0.0, 5.0]])}
    params = {"w": jnp.ones((2, 2))}
    direction = first_update(Celo2Config.released().build(), {"network": weights}, params, grads)["w"]
    np.testing.assert_allclose(direction, grads["w"] / np.sqrt(12.5), rtol=1e-5)


@pytest.mark.parametrize("variant", fast_for("normalized", among=list(VARIANTS.values())))
def test_bfloat16_state_is_smaller_and_close(variant: Any) -> None:
    params = normal(FEW, np.random.default_rng(10))
    sizes, paths = {}, {}
    for dtype in ("float32", "bfloat16"):
        learned = Celo2Config(variant=variant, state_dtype=dtype).build()
        optimizer = learned.transform(noisy_theta(learned), num_steps=20)
        state, rng, total = optimizer.init(params), np.random.default_rng(11), 0.0
        update = jax.jit(optimizer.update)
        for _ in range(8):
            updates, state = update(normal(FEW, rng), state, params)
            total = total + np.asarray(updates["wide"], np.float64)
        sizes[dtype] = sum(x.nbytes for x in jax.tree.leaves(state))
        paths[dtype] = total
    assert sizes["bfloat16"] < 0.7 * sizes["float32"]
    assert rms(paths["bfloat16"] - paths["float32"]) < 0.1 * rms(paths["float32"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adam_paths": "(head"}, "`adam_paths` must be a regular expression"),
        ({"features": ("row", "column")}, "at least one that vectors have"),
        ({"features": ("gradient", "gradient")}, "each feature group once"),
        ({"features": ("gradients",)}, "Did you mean 'gradient'"),
        ({"momentum_decays": (0.9,)}, "`factored_decays`, which must be equally many, got 1 and 3"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, KeyError), match=message.replace("(", r"\(")):
        Celo2Config(**changes)


def test_the_loss_is_not_read() -> None:
    assert not Celo2.reads_loss
