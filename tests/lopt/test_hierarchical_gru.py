"""`hierarchical_gru` against the paper's equations in float64, its invariances, its ablations, its random start."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hierarchical_gru_reference import Reference
from optimizers import fast_for
from pydantic import ValidationError

from lopt.architectures import hierarchical_gru
from lopt.architectures.hierarchical_gru import FEATURES, HierarchicalGruConfig
from lopt.config import derive
from lopt.features import gradient_scales as gs
from lopt.features.stacks import plan_stacks
from lopt.gradient_location import gradient_params

KEY = jax.random.key(0)
CONFIG = HierarchicalGruConfig()
PARAMS = {
    "a": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3),
    "b": jnp.linspace(0.0, 2.0, 12).reshape(4, 3),
    "c": jnp.asarray([0.5, -0.5]),
}


def without(*names: str, **changes: Any) -> HierarchicalGruConfig:
    kept = tuple(name for name in CONFIG.features if name not in names)
    return derive(CONFIG, features=kept, **changes)


def lively_theta(config: HierarchicalGruConfig = CONFIG, seed: int = 1) -> Any:
    """Theta in which nothing is zero or twice the same."""
    theta = config.build().init_theta(KEY)
    leaves, treedef = jax.tree.flatten(theta)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return treedef.unflatten(
        [x + 0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    )


def gradients(steps: int, scale: float = 1.0, params: Any = PARAMS) -> list[Any]:
    rng = np.random.default_rng(5)
    return [
        jax.tree.map(lambda p: jnp.asarray(scale * rng.normal(size=p.shape), jnp.float32), params)
        for _ in range(steps)
    ]


def run(
    config: HierarchicalGruConfig, theta: Any, grads: list[Any], params: Any = PARAMS
) -> tuple[list[Any], Any]:
    optimizer = config.build().transform(theta, num_steps=len(grads))
    state, updates = optimizer.init(params), []
    step = jax.jit(optimizer.update)
    for g in grads:
        change, state = step(g, state, params)
        params = optax.apply_updates(params, change)
        updates.append(change)
    return updates, state


def size_of(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def test_follows_the_equations_with_the_gradient_at_the_attended_location() -> None:
    theta = lively_theta()
    optimizer = CONFIG.build().transform(theta, num_steps=8)
    params, state = PARAMS, optimizer.init(PARAMS)
    by_stack = {stack.log_step.shape[1:]: stack.log_step for stack in state.stacks}
    log_steps = [by_stack[4, 3][0].ravel(), by_stack[4, 3][1].ravel(), by_stack[(2,)][0]]
    paper = Reference(
        jax.tree.map(lambda x: np.asarray(x, np.float64), theta),
        [np.ravel(PARAMS[name]) for name in "abc"],
        [np.asarray(x) for x in log_steps],
    )
    slopes = [np.linspace(1.0, 3.0, 12), np.linspace(5.0, 0.1, 12), np.asarray([1e3, 1e-3])]
    for step in range(8):
        at, factor = gradient_params(state, params), 0.0 if step == 3 else 1.0 + step
        for name, want in zip("abc", paper.attended(), strict=True):
            np.testing.assert_allclose(np.ravel(at[name]), want, rtol=2e-4, atol=1e-6)
        grads = {
            name: jnp.asarray(factor * s.reshape(at[name].shape), jnp.float32) * at[name]
            for name, s in zip("abc", slopes, strict=True)
        }
        paper.update([factor * s * x for s, x in zip(slopes, paper.attended(), strict=True)])
        updates, state = jax.jit(optimizer.update)(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name, want in zip("abc", paper.params, strict=True):
            moved = np.abs(want - np.ravel(PARAMS[name])).max()
            np.testing.assert_allclose(np.ravel(params[name]), want, atol=1e-3 * moved + 1e-7)


def test_the_scale_of_the_gradients_changes_nothing() -> None:
    theta = lively_theta()
    updates, _ = run(CONFIG, theta, gradients(5))
    for scale in (2.0**-20, 2.0**20):  # powers of two round alike; 1e-6 of a step is what the divisions leave
        scaled, _ = run(CONFIG, theta, gradients(5, scale))
        for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(scaled), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3)


def test_an_update_is_a_step_length_times_a_direction_of_unit_rms() -> None:
    (update,), state = run(CONFIG, lively_theta(), gradients(1))
    directions = np.asarray(update["a"]) / np.exp(np.asarray(state.stacks[0].log_step[0]))
    assert np.sqrt(np.mean(directions**2)) == pytest.approx(1.0, rel=1e-5)
    one_step = derive(CONFIG, initial_steps=(0.01, 0.01))
    theta = one_step.build().init_theta(KEY)  # Δη is zero in it: all step lengths stay 0.01
    (update,), _ = run(one_step, theta, gradients(1))
    assert np.sqrt(np.mean(np.asarray(update["a"]) ** 2)) == pytest.approx(0.01, rel=1e-5)


def test_the_first_location_is_e_steps_ahead_of_where_the_update_started() -> None:
    theta = CONFIG.build().init_theta(KEY)  # both directions are read out alike, and c = 1
    updates, state = run(CONFIG, theta, gradients(1))
    at = gradient_params(state, optax.apply_updates(PARAMS, updates[0]))
    for name in "abc":
        np.testing.assert_allclose(at[name] - PARAMS[name], np.e * updates[0][name], rtol=1e-3, atol=5e-7)


def test_log_steps_follow_their_momentum() -> None:
    theta = CONFIG.build().init_theta(KEY)
    theta["log_step"]["b"] = jnp.float32(0.25)
    start = CONFIG.build().transform(theta, num_steps=4).init(PARAMS).stacks[0].log_step
    _, state = run(CONFIG, theta, gradients(4))
    # Δη = ¼ always, so η̄ gains (1 − γ)/4 per step and η is ¼ ahead of the η̄ before.
    gained = 0.25 * (1.0 - 1.0 / (1.0 + np.exp(-3.2)))
    np.testing.assert_allclose(state.stacks[0].log_step_average, start + 4 * gained, rtol=1e-5)
    np.testing.assert_allclose(state.stacks[0].log_step, start + 3 * gained + 0.25, rtol=1e-5)


def test_a_clipped_step_length_can_still_be_learned() -> None:
    theta = CONFIG.build().init_theta(KEY)

    def last_log_step(bias: jax.Array) -> jax.Array:
        changed = {**theta, "log_step": {**theta["log_step"], "b": bias}}
        optimizer = CONFIG.build().transform(changed, num_steps=1)
        return optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)[1].stacks[1].log_step[0, 0]

    value, slope = jax.value_and_grad(last_log_step)(jnp.float32(1e3))
    assert (float(value), float(slope)) == (33.0, 1.0)


def test_time_scales_double() -> None:
    decays = gs.timescale_decays(jnp.float32(0.5), 4)
    np.testing.assert_allclose([np.log(2) / -np.log(d) for d in decays], [1, 2, 4, 8], rtol=1e-5)


def test_a_constant_gradient_is_its_own_average_and_scaled_to_its_sign() -> None:
    stack = plan_stacks([jnp.ones(3)])[0]
    scales, grad = gs.init_scales(stack, 4), jnp.asarray([[3.0, -1e-12, 0.0]])
    for decay in (0.0, 0.9, 0.97, 0.5):  # the first is what the state starts with
        scales, scaled = gs.update_scales(scales, grad, jnp.float32(decay), jnp.float32(decay))
    for s in range(4):
        np.testing.assert_allclose(scales.averages[s], grad, rtol=1e-5)
        np.testing.assert_allclose(scaled[s], [[1.0, -1.0, 0.0]], rtol=1e-5)
    for relative in gs.relative_log_magnitudes(scales):
        np.testing.assert_allclose(relative, np.zeros((1, 3)), atol=1e-4)


def test_averaging_noise_makes_the_longer_time_scales_smaller() -> None:
    stack = plan_stacks([jnp.ones(2_000)])[0]

    def step(i: jax.Array, scales: gs.GradientScales) -> gs.GradientScales:
        grad = jax.random.normal(jax.random.fold_in(KEY, i), (1, 2_000))
        decay = jnp.where(i > 0, jnp.float32(0.5), 0.0)
        return gs.update_scales(scales, grad, decay, decay)[0]

    scales = jax.lax.fori_loop(0, 200, step, gs.init_scales(stack, 4))
    means = [float(jnp.mean(x)) for x in gs.relative_log_magnitudes(scales)]
    assert means == sorted(means, reverse=True)
    assert means[0] - means[3] > 1.0


@pytest.mark.parametrize("name", fast_for("attention", "relative_step", among=sorted(CONFIG.features)))
def test_every_feature_can_be_left_out_and_then_costs_nothing(name: str) -> None:
    config = without(name)
    theta = config.build().init_theta(KEY)
    updates, state = run(config, theta, gradients(3))
    assert all(bool(jnp.all(jnp.isfinite(u))) for u in jax.tree.leaves(updates))
    # Per input: a column of 30 in the parameter network and one of 60 in the tensor network.
    fewer = {
        "attention": 10 + 1,  # a read-out and c
        "gradient_timescales": 7 * (30 + 60)
        + 11,  # 3 m_s, 4 γ_s; and the decay of averages has none to act on
        "input_decay": 11,
        "relative_magnitudes": 4 * (30 + 60),
        "relative_step": 30 + 60,
        "scale_decay": 11,
        "trainable_initial_state": 50,
    }
    assert size_of(CONFIG.build().init_theta(KEY)) - size_of(theta) == fewer[name]
    num_params = size_of(PARAMS)
    less_state = {"attention": 1, "gradient_timescales": 4 + 3 + 1, "input_decay": 1, "scale_decay": 1}
    full = run(CONFIG, CONFIG.build().init_theta(KEY), gradients(1))[1]
    assert size_of(full) - size_of(state) == less_state.get(name, 0) * num_params


@pytest.mark.parametrize(
    "name", fast_for("gradient_shortcut", among=sorted(set(FEATURES) - set(CONFIG.features)))
)
def test_the_releases_further_features_change_the_update(name: str) -> None:
    config = derive(CONFIG, features=(*CONFIG.features, name))
    updates, _ = run(config, config.build().init_theta(KEY), gradients(2))
    plain, _ = run(CONFIG, CONFIG.build().init_theta(KEY), gradients(2))
    assert float(jnp.max(jnp.abs(updates[1]["a"] - plain[1]["a"]))) > 1e-6
    assert size_of(config.build().init_theta(KEY)) > size_of(CONFIG.build().init_theta(KEY))


def test_the_shortcut_starts_downhill() -> None:
    config = derive(CONFIG, features=(*CONFIG.features, "gradient_shortcut"), initial_steps=(1e-2, 1e-2))
    theta = config.build().init_theta(KEY)
    theta["directions"] = jax.tree.map(jnp.zeros_like, theta["directions"])
    optimizer = config.build().transform(theta, num_steps=60)

    def step(_: int, carry: Any) -> Any:
        params, state = carry
        loss, grads = jax.value_and_grad(lambda p: 0.5 * optax.tree.sum(jax.tree.map(jnp.square, p)))(
            gradient_params(state, params)
        )
        updates, state = optimizer.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    params, _ = jax.lax.fori_loop(0, 60, step, (PARAMS, optimizer.init(PARAMS)))
    before, after = (float(optax.tree.norm(p)) for p in (PARAMS, params))
    assert after < 0.6 * before


def test_without_attention_the_gradient_belongs_at_the_parameters() -> None:
    config = without("attention")
    _, state = run(config, config.build().init_theta(KEY), gradients(2))
    assert state.attention is None
    assert gradient_params(state, PARAMS) is PARAMS


def first_step_that_differs(config: HierarchicalGruConfig) -> int | None:
    """Returns after how many updates tensor "a" notices that the gradients of "c" are different."""
    theta = lively_theta(config)
    other = [{**g, "c": g["c"] * jnp.asarray([1.0, -3.0])} for g in gradients(4)]
    updates, _ = run(config, theta, gradients(4))
    changed, _ = run(config, theta, other)
    for step, (x, y) in enumerate(zip(updates, changed, strict=True)):
        if not np.array_equal(x["a"], y["a"]):
            return step
    return None


@pytest.mark.slow
def test_tensors_hear_of_each_other_through_the_global_network_only() -> None:
    # c's parameters → its tensor network (1st update) → the global one (1st) → a's parameters (2nd).
    assert first_step_that_differs(without("relative_step")) == 1
    assert first_step_that_differs(without("relative_step", global_size=0)) is None
    assert first_step_that_differs(without("relative_step", global_size=0, tensor_size=0)) is None


def test_initial_steps_are_random_within_their_range_and_reproducible() -> None:
    stacks = plan_stacks([jnp.zeros((50, 40)), jnp.zeros((50, 40)), jnp.zeros((7,))])
    pair, vector = (np.exp(gs.random_log_steps(stack, 3, (1e-6, 1e-2))) for stack in stacks)
    assert pair.min() >= 0.99e-6
    assert pair.max() <= 1.01e-2
    assert abs(np.log(pair[0]).mean() - np.log(pair[1]).mean()) > 0.1  # tensors differ in their means
    assert np.log(pair[0]).std() == pytest.approx(np.log(1e4) / 2 / np.sqrt(12), rel=0.05)
    alone = plan_stacks([jnp.zeros((50, 40))])[0]
    np.testing.assert_array_equal(np.exp(gs.random_log_steps(alone, 3, (1e-6, 1e-2)))[0], pair[0])
    assert not np.array_equal(np.exp(gs.random_log_steps(alone, 4, (1e-6, 1e-2)))[0], pair[0])
    assert vector.shape == (1, 7)


@pytest.mark.slow
def test_large_tensors_in_pieces_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"w": jnp.zeros((96, 128)), "u": jnp.ones((96, 128)), "b": jnp.ones((30,))}
    theta = lively_theta()
    monkeypatch.setattr(hierarchical_gru, "CHUNK_SIZE", 4096)
    pieces, state = run(CONFIG, theta, gradients(3, params=params), params)
    monkeypatch.setattr(hierarchical_gru, "CHUNK_SIZE", 10**9)
    whole, expected = run(CONFIG, theta, gradients(3, params=params), params)
    for a, b in zip(jax.tree.leaves((pieces, state)), jax.tree.leaves((whole, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * float(jnp.max(jnp.abs(b))))


def test_states_and_thetas_can_be_donated() -> None:
    theta = CONFIG.build().init_theta(KEY)

    def step(theta: Any, grads: Any, state: Any) -> Any:
        return theta, CONFIG.build().transform(theta, num_steps=3).update(grads, state, PARAMS)[1]

    compiled = jax.jit(step, donate_argnums=(0, 2))
    state = CONFIG.build().transform(theta, num_steps=3).init(PARAMS)
    for grads in gradients(2):
        theta, state = compiled(theta, grads, state)
    assert float(state.num_updates) == 2.0


def test_an_empty_tree_is_left_alone() -> None:
    optimizer = CONFIG.build().transform(CONFIG.build().init_theta(KEY), num_steps=3)
    assert optimizer.update({}, optimizer.init({}), {})[0] == {}


def test_unknown_features_and_impossible_steps_are_refused() -> None:
    with pytest.raises(
        KeyError, match=r"unknown feature of `hierarchical_gru` 'atention'.*Did you mean 'attention'"
    ):
        HierarchicalGruConfig(features=("atention",))
    with pytest.raises(ValidationError, match="two positive lengths, the smaller first"):
        HierarchicalGruConfig(initial_steps=(1e-2, 1e-6))
