"""`rnn_mlp` against the published network, the paper in float64, and what arrays cannot show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilation import AS_FOR_USERS
from golden_runs import assert_follows, leaves, read_arrays
from rnn_mlp_reference import Reference
from rnn_mlp_runs import gradients, loss_at, random_theta, tensors, theta_of

from lopt.architectures.rnn_mlp import RnnMlp, RnnMlpConfig, RnnMlpState
from lopt.config import derive
from lopt.features import rolling_clip as rc
from lopt.rules import rnn_mlp as rnn_mlp_rule

SIZES = {
    "lstm_hidden_size": 8,
    "mlp_hidden_sizes": (12, 6),
    "lstm_to_lstm_size": 5,
    "lstm_to_mlp_size": 4,
    "mlp_to_lstm_size": 3,
}
SMALL = RnnMlpConfig(**SIZES)
VARIANTS = {
    "default": (SMALL, {"loss_decays": (0.95, 0.9), "feature_bound": 1.0, "epsilon": 1e-8}),
    "released": (
        RnnMlpConfig.released(**SIZES),
        {"loss_decays": (0.9, 0.95), "feature_bound": None, "epsilon": 1e-5},
    ),
}
NUM_STEPS = 12


@pytest.fixture
def arrays(golden: Path) -> dict[str, np.ndarray]:
    return read_arrays(golden, "b_rnn_mlp.npz")


def test_follows_the_published_network_and_ends_in_its_state(arrays: dict[str, np.ndarray]) -> None:
    optimizer = RnnMlpConfig.released().build().transform(theta_of(arrays), num_steps=50)
    params = {k: jnp.asarray(v) for k, v in leaves(arrays, "params", 0).items()}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update, compiler_options=AS_FOR_USERS)
    path = [params]
    for t, loss in enumerate(arrays["losses"]):
        grads = {k: jnp.asarray(v) for k, v in leaves(arrays, "grads", t).items()}
        updates, state = update(grads, state, params, value=jnp.float32(loss))
        params = jax.tree.map(jnp.add, params, updates)
        path.append(params)
    assert_follows(path, arrays)
    close = lambda mine, name: np.testing.assert_allclose(
        mine, arrays[f"final_state/{name}"], rtol=1e-5, atol=5e-6
    )
    close(state.clip.size, "clip")
    close(state.lstm.hidden, "lstm_hidden")
    close(state.lstm.cell, "lstm_cell")
    close(state.from_lstm, "from_lstm")
    for row, leaf in enumerate(sorted(params)):
        close(state.from_mlp[row], f"from_mlp/{leaf}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_follows_the_paper_in_float64(variant: str) -> None:
    config, constants = VARIANTS[variant]
    theta = random_theta(config)
    opt = config.build().transform(theta, num_steps=NUM_STEPS)
    update = jax.jit(opt.update)
    for case in ("plain", "zero", "large", "zero rows", "one large entry"):
        reference = Reference(
            {k: v for k, v in jax.tree.map(np.asarray, theta).items() if k != "clip"},
            tensors(0),
            clip=clip_constants(theta),
            counts_validation=variant == "released",
            **constants,
        )
        params = tensors(0)
        state = opt.init(params)
        for step in range(NUM_STEPS):
            grads, loss = gradients(case, step), loss_at(step)
            valid = 1.5 * loss if step % 3 == 1 else None
            given = jnp.float32(jnp.nan if valid is None else valid)
            updates, state = update(grads, state, params, value=jnp.float32(loss), valid_value=given)
            expected = reference.step([np.asarray(g) for g in grads], loss, valid)
            for mine, theirs in zip(updates, expected, strict=True):
                # 2e-9: float32's rounding of a direction near zero, times the step multiplier 0.001.
                bound = 1e-4 * np.max(np.abs(theirs)) + 2e-9
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=bound, err_msg=case)
            params = optax.apply_updates(params, updates)
        for mine, theirs in (
            (state.lstm.hidden, reference.hidden),
            (state.lstm.cell, reference.cell),
            (state.from_mlp, np.stack(reference.from_mlp)),
            (state.from_lstm, reference.from_lstm),
        ):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4, err_msg=case)
        np.testing.assert_allclose(state.clip.size, reference.snd, rtol=1e-5)
        assert int(state.progress) == NUM_STEPS + (4 if variant == "released" else 0)


def clip_constants(theta: Any) -> tuple[float, float]:
    """Decay and multiplier of the rolling clip."""
    if "clip" not in theta:
        return 0.99, 10.0
    logs = {k: float(v) for k, v in theta["clip"].items()}
    return 1.0 - float(np.exp(logs["log_one_minus_decay"])), float(np.exp(logs["log_multiplier"]))


def two_steps(
    learned: RnnMlp, theta: Any, params: Any, *, seed: int = 0, **extra: Any
) -> tuple[Any, RnnMlpState]:
    """Updates and state after two steps with random gradients; what one network says the other has heard."""
    opt = learned.transform(theta, num_steps=10)

    @jax.jit
    def run(params: Any, extra: Any) -> tuple[Any, RnnMlpState]:
        state = opt.init(params)
        for step in range(2):
            keys = jax.random.split(jax.random.key(seed + step), len(jax.tree.leaves(params)))
            noise = [
                jax.random.normal(k, p.shape) for k, p in zip(keys, jax.tree.leaves(params), strict=True)
            ]
            grads = jax.tree.unflatten(jax.tree.structure(params), noise)
            updates, state = opt.update(grads, state, params, value=jnp.float32(1.0 + step), **extra)
        return updates, state

    return run(params, extra)


@pytest.mark.slow
def test_every_part_of_theta_matters_by_the_second_step() -> None:
    learned = SMALL.build()
    theta = random_theta(SMALL)
    params = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), "b": jnp.linspace(0.0, 1.0, 3)}

    @jax.jit
    def after_three(theta: Any) -> jax.Array:
        opt = learned.transform(theta, num_steps=10)
        state, moved = opt.init(params), params
        for step in range(3):
            # Beyond the first bounds of the clip, so that its settings are felt.
            grads = jax.tree.map(lambda p, step=step: 100.0 * jnp.cos(p + step), moved)
            updates, state = opt.update(grads, state, moved, value=jnp.float32(1.0 / (1 + step)))
            moved = optax.apply_updates(moved, updates)
        return jnp.concatenate([u.reshape(-1) for u in jax.tree.leaves(updates)])

    base = after_three(theta)
    for path, leaf in jax.tree_util.tree_leaves_with_path(theta):
        other = jax.tree_util.tree_map_with_path(lambda p, x, path=path: x + 0.3 if p == path else x, theta)
        change = float(jnp.max(jnp.abs(after_three(other) - base)))
        assert change > 1e-8, f"{jax.tree_util.keystr(path)} {leaf.shape} changes nothing"


@pytest.mark.slow
def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor in several pieces, several tensors per piece, and all at once: the same numbers and messages."""
    params = {
        "wide": 0.1 * jax.random.normal(jax.random.key(0), (80, 128)),
        "small": [0.1 * jax.random.normal(jax.random.key(i), (32, 32)) for i in range(6)],
    }
    learned, theta = SMALL.build(), random_theta(SMALL)
    monkeypatch.setattr(rnn_mlp_rule, "CHUNK_SIZE", 10**9)
    whole = two_steps(learned, theta, params)
    monkeypatch.setattr(rnn_mlp_rule, "CHUNK_SIZE", 3000)
    pieces = two_steps(learned, theta, params)
    for a, b in zip(*map(jax.tree.leaves, (whole, pieces)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_order_and_names_of_tensors_do_not_matter() -> None:
    a, b, c = (0.1 * jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(3, 4), (5,), (3, 4)]))
    learned, theta = SMALL.build(), random_theta(SMALL)

    def updates(params: dict[str, jax.Array]) -> dict[str, jax.Array]:
        opt = learned.transform(theta, num_steps=10)
        state = opt.init(params)
        for _ in range(2):
            grads = jax.tree.map(jnp.sin, params)
            result, state = jax.jit(opt.update)(grads, state, params, value=jnp.float32(1.0))
        return result

    straight = updates({"0": a, "1": b, "2": c, "9": jnp.zeros((0, 2))})
    turned = updates({"0": c, "1": jnp.zeros((0, 2)), "2": a, "3": b})
    for name, other in (("0", "2"), ("1", "3"), ("2", "0")):
        np.testing.assert_allclose(straight[name], turned[other], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_validation_loss_is_optional_heard_and_counted_only_in_the_release() -> None:
    params = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)}
    for config, steps_heard in ((SMALL, 2), (VARIANTS["released"][0], 4)):
        learned, theta = config.build(), random_theta(config)
        absent, state = two_steps(learned, theta, params)
        missing, same = two_steps(learned, theta, params, valid_value=jnp.float32(jnp.nan))
        for a, b in zip(*map(jax.tree.leaves, ((absent, state), (missing, same))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
        assert float(state.valid_loss.num_losses) == 0
        assert int(state.progress) == 2
        heard, state = two_steps(learned, theta, params, valid_value=jnp.float32(1.2))
        assert float(jnp.max(jnp.abs(heard["w"] - absent["w"]))) > 1e-7
        assert float(state.valid_loss.num_losses) == 2
        assert int(state.progress) == steps_heard


def test_first_compiled_step_is_finite_without_any_loss_seen() -> None:
    """The published network divides 0 by 1 − β⁰ there, and is NaN."""
    for config in (SMALL, VARIANTS["released"][0]):
        opt = config.build().transform(random_theta(config), num_steps=10)
        params = {"w": jnp.ones((3, 2))}
        update = jax.jit(
            lambda s, opt=opt, params=params: opt.update(params, s, params, value=jnp.float32(1.0))
        )
        updates, state = update(opt.init(params))
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves((updates, state)))


@pytest.mark.parametrize("size", [1e5, 1e20])
@pytest.mark.slow
def test_stays_finite_while_the_clip_follows_large_gradients(size: float) -> None:
    """Five hundred steps are enough for the rolling bound to reach any size."""
    theta = random_theta(SMALL)
    theta["clip"] = rc.init_clip_theta()
    opt = SMALL.build().transform(theta, num_steps=500)
    params = {"w": jnp.linspace(-1.0, 1.0, 600).reshape(20, 30), "b": jnp.zeros(3)}

    def step(carry: Any, t: jax.Array) -> tuple[Any, jax.Array]:
        params, state = carry
        grads = jax.tree.map(lambda p: size * jnp.cos(p + t), params)
        updates, state = opt.update(grads, state, params, value=size * jnp.cos(t))
        return (optax.apply_updates(params, updates), state), rc.clip_bound(state.clip, rc.FIXED_CLIP)

    carry, bounds = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(500.0)))((params, opt.init(params)))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(carry))
    limit = min(size, SMALL.max_gradient or 0.0)
    assert float(bounds[-1]) > limit  # the run did get to where nothing is clipped but by `max_gradient`
    assert float(jnp.max(jnp.abs(carry[0]["w"]))) < 100.0


@pytest.mark.slow
def test_meta_gradients_are_finite_where_a_bias_starts_at_zero() -> None:
    params = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "b": jnp.zeros(2)}
    learned = SMALL.build()

    @jax.jit
    def final(theta: Any) -> jax.Array:
        opt = learned.transform(theta, num_steps=3)
        state, moved, total = opt.init(params), params, jnp.float32(0.0)
        for _ in range(2):
            updates, state = opt.update(jax.tree.map(jnp.sin, moved), state, moved, value=jnp.float32(1.0))
            moved = optax.apply_updates(moved, updates)
            total += sum((jnp.sum(u) for u in jax.tree.leaves(updates)), jnp.float32(0.0))
        return 1e3 * total  # of the updates, not of the parameters, which would swallow their digits

    theta = random_theta(SMALL)
    slopes = jax.grad(final)(theta)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(slopes))
    bias = lambda h: {**theta, "network": {**theta["network"], "b2": theta["network"]["b2"].at[0].add(h)}}
    secant = (final(bias(0.5)) - final(bias(-0.5))) / 1.0
    np.testing.assert_allclose(slopes["network"]["b2"][0], secant, rtol=1e-2)


@pytest.mark.slow
def test_half_precision_state_is_half_as_large_and_takes_nearly_the_same_steps() -> None:
    params = {"w": 0.1 * jax.random.normal(jax.random.key(0), (16, 16))}
    theta = random_theta(SMALL)
    half = derive(SMALL, state_dtype="bfloat16")
    size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
    full_updates, full_state = two_steps(SMALL.build(), theta, params)
    half_updates, half_state = two_steps(half.build(), theta, params)
    assert size(half_state.accumulators) * 2 == size(full_state.accumulators)
    np.testing.assert_allclose(half_updates["w"], full_updates["w"], rtol=0.1, atol=2e-5)


@pytest.mark.slow
def test_ablations_shrink_theta_and_unknown_names_are_refused() -> None:
    names = tuple(name for name in SMALL.features if name != "second_moment")
    config = derive(
        SMALL, features=names, context=("step", "from_lstm"), summaries=("from_mlp", "train_loss", "shape")
    )
    theta = config.build().init_theta(jax.random.key(0))
    assert theta["network"]["w0"].shape == (23 - 5 + 11 + 4, 12)
    assert theta["lstm"]["w"].shape == (3 + 1 + 4 + 8, 32)
    updates, _ = two_steps(config.build(), theta, {"w": jnp.ones((3, 2))})
    assert bool(jnp.all(jnp.isfinite(updates["w"])))
    with pytest.raises(KeyError, match=r"Did you mean 'momentum'\?"):
        RnnMlpConfig(features=("momentun",))
    with pytest.raises(ValueError, match="named once"):
        RnnMlpConfig(summaries=("shape", "shape"))
    with pytest.raises(KeyError, match="tensor context"):
        RnnMlpConfig(context=("num_tensor",))


def test_default_and_released_differ_where_the_docstring_says() -> None:
    default, released = RnnMlpConfig(), RnnMlpConfig.released()
    changed = {k for k, v in default.model_dump().items() if released.model_dump()[k] != v}
    assert changed == {
        "train_loss_decay",
        "valid_loss_decay",
        "learned_clip",
        "feature_bound",
        "normalizer_epsilon",
        "max_gradient",
        "counts_validation",
    }
    theta = default.build().init_theta(jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(theta)) == 35_801
    assert "clip" not in released.build().init_theta(jax.random.key(0))


def test_no_parameters_at_all() -> None:
    opt = SMALL.build().transform(random_theta(SMALL), num_steps=10)
    updates, _ = opt.update({}, opt.init({}), {}, value=jnp.float32(1.0))
    assert updates == {}
