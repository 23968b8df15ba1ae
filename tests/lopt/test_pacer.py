"""`pacer` against its hand-designed twin, and what only `pacer` promises."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lopt.architectures.pacer import PacerConfig, PacerState
from lopt.features import grouping

PARAMS = {
    "dense": {"w": jnp.arange(15, dtype=jnp.float32).reshape(5, 3) / 10 - 0.5, "b": jnp.zeros(3)},
    "conv": 0.1 * jax.random.normal(jax.random.key(1), (3, 3, 2, 4)),
    "scale": jnp.float32(1.0),
}


def hand_designed_twin(params: Any, num_steps: int, config: PacerConfig) -> optax.GradientTransformation:
    """Trust-ratio Adam with a cosine schedule, from optax's own pieces and two stateless ones."""
    rms = lambda x: jnp.sqrt(jnp.mean(jnp.square(x)))
    matrices = [rms(p) for p in jax.tree.leaves(params) if p.ndim >= 2]
    shared = jnp.exp(jnp.mean(jnp.log(jnp.stack(matrices))))
    initial = jax.tree.map(lambda p: rms(p) if p.ndim >= 2 else shared, params)
    started_at_zero = jax.tree.map(lambda p: bool(jnp.all(p == 0)), params)

    def trust(updates: Any, params: Any) -> Any:
        def one(u: jax.Array, p: jax.Array, r0: jax.Array, was_zero: bool) -> jax.Array:
            current = r0 if was_zero else rms(p)
            return u / rms(u) * jnp.sqrt(r0 * current)

        return jax.tree.map(one, updates, params, initial, started_at_zero)

    first = min(config.base_step / num_steps**0.5, config.max_first_step)
    return optax.chain(
        optax.scale_by_adam(b1=0.9, b2=config.second_moment_decay, eps=0.0, eps_root=1e-30),
        optax.stateless(lambda u, p: jax.tree.map(lambda x: jnp.clip(x, -5, 5), u)),
        optax.stateless(trust),
        optax.scale_by_schedule(optax.cosine_decay_schedule(-first, num_steps)),
    )


def gradient(params: Any, step: int) -> Any:
    """A made-up gradient: the same for both optimizers, of very different size from step to step."""
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(step), len(leaves))
    size = 10.0 ** float(np.cos(3 * step))
    return treedef.unflatten(
        [size * jax.random.normal(k, p.shape) for k, p in zip(keys, leaves, strict=True)]
    )


@pytest.mark.parametrize("num_steps", [4, 30, 2_000])
def test_at_initialisation_it_is_its_hand_designed_twin(num_steps: int) -> None:
    config = PacerConfig()
    learned = config.build()
    opt = learned.transform(learned.init_theta(jax.random.key(7)), num_steps=num_steps)
    twin = hand_designed_twin(PARAMS, num_steps, config)
    ours, theirs = PARAMS, PARAMS
    state, twin_state = opt.init(ours), twin.init(theirs)
    for step in range(min(num_steps, 30)):
        updates, state = opt.update(gradient(ours, step), state, ours, value=jnp.float32(1.0 / (step + 1)))
        with jax.numpy_dtype_promotion("standard"):  # optax mixes float32 and int32 in its bias correction
            twin_updates, twin_state = twin.update(gradient(theirs, step), twin_state, theirs)
        ours, theirs = optax.apply_updates(ours, updates), optax.apply_updates(theirs, twin_updates)
    for path, mine in jax.tree_util.tree_leaves_with_path(ours):
        other = dict(jax.tree_util.tree_leaves_with_path(theirs))[path]
        np.testing.assert_allclose(mine, other, rtol=2e-5, atol=2e-6, err_msg=jax.tree_util.keystr(path))
    moved = max(
        float(jnp.max(jnp.abs(a - b))) for a, b in zip(*map(jax.tree.leaves, (ours, PARAMS)), strict=True)
    )
    assert moved > 0.01  # the agreement is not that of two optimizers standing still


def test_theta_is_a_few_hundred_numbers() -> None:
    theta = PacerConfig().build().init_theta(jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(theta)) == 425


def test_every_part_of_theta_matters() -> None:
    """A perturbed output layer, skip weight or controller changes the update: nothing is disconnected."""
    learned = PacerConfig().build()
    theta = learned.init_theta(jax.random.key(0))

    def step(theta: Any) -> jax.Array:
        opt = learned.transform(theta, num_steps=10)
        state = opt.init(PARAMS)
        params = PARAMS
        for i in range(3):
            updates, state = opt.update(gradient(params, i), state, params, value=jnp.float32(1.0 - 0.1 * i))
            params = optax.apply_updates(params, updates)
        return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(params)])

    base = step(theta)
    for path, leaf in jax.tree_util.tree_leaves_with_path(theta):
        name = jax.tree_util.keystr(path)
        if "1" not in name and "2" not in name and "skip" not in name:
            continue  # hidden layers act only once the zero output layers have moved
        if name.endswith(("['w1']", "['b1']")) and "direction" in name:
            continue
        noise = jax.random.normal(jax.random.key(3), leaf.shape)
        changed = jax.tree_util.tree_map_with_path(
            lambda p, x, path=path, noise=noise: x + noise if p == path else x, theta
        )
        assert float(jnp.max(jnp.abs(step(changed) - base))) > 1e-4, name


def test_groups_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors in one vector or each on its own: the same numbers."""
    learned = PacerConfig().build()
    theta = jax.tree.map(lambda x: x + 0.1, learned.init_theta(jax.random.key(0)))
    opt = learned.transform(theta, num_steps=10)

    def run() -> tuple[Any, PacerState]:
        state = opt.init(PARAMS)
        for i in range(4):
            updates, state = opt.update(gradient(PARAMS, i), state, PARAMS, value=jnp.float32(2.0 - i))
        return updates, state

    together, state = run()
    assert len(state.groups) == 1
    original = grouping.plan
    monkeypatch.setattr(grouping, "plan", lambda tensors: original(tensors, small=4))
    alone, state = run()
    assert len(state.groups) == 3  # two matrices apart, the two small ones together
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-8)


def test_steps_do_not_depend_on_the_scale_of_gradients_or_parameters() -> None:
    """Parameters a thousand times larger, gradients a million times smaller: the same relative steps."""
    learned = PacerConfig().build()
    theta = jax.tree.map(lambda x: x + 0.05, learned.init_theta(jax.random.key(0)))
    opt = learned.transform(theta, num_steps=10)
    matrix = {"w": PARAMS["conv"]}

    def run(size: float, gradient_size: float) -> jax.Array:
        params = jax.tree.map(lambda p: p * size, matrix)
        state = opt.init(params)
        for i in range(5):
            grads = jax.tree.map(lambda g: g * gradient_size, gradient(matrix, i))
            updates, state = opt.update(grads, state, params, value=jnp.float32(1.0))
            params = optax.apply_updates(params, updates)
        return params["w"] / size

    np.testing.assert_allclose(run(1.0, 1.0), run(1e3, 1e-6), rtol=1e-4, atol=1e-6)


def test_a_tensor_without_gradient_stands_still() -> None:
    learned = PacerConfig().build()
    opt = learned.transform(learned.init_theta(jax.random.key(0)), num_steps=10)
    grads = gradient(PARAMS, 0)
    grads["conv"] = jnp.zeros_like(grads["conv"])
    updates, _ = opt.update(grads, opt.init(PARAMS), PARAMS, value=jnp.float32(1.0))
    assert float(jnp.max(jnp.abs(updates["conv"]))) == 0.0
    assert float(jnp.max(jnp.abs(updates["dense"]["w"]))) > 0.0


def test_unknown_feature_names_the_nearest() -> None:
    with pytest.raises(KeyError, match=r"Did you mean 'momentum_fast'\?"):
        PacerConfig(features=("momentum_fst",))
