"""What Adam trains beside `celo2`: which leaves, and that it is optax's Adam, or the release's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from celo2_runs import VARIANTS, first_update, noisy_theta
from optimizers import fast_for

from lopt.architectures.celo2 import Celo2, Celo2Config

NAMED = {
    "Embed_0": {"embedding": (7, 4)},
    "block": {"attention_head": {"kernel": (4, 4), "bias": (4,)}, "scale": ()},
    "lm_head": {"kernel": (4, 7)},
    "Dense_3": {"kernel": (4, 6)},
}


def trained_by_adam(learned: Celo2) -> set[str]:
    """Paths of the leaves that theta has no influence on.

    Of six thetas: a scalar divided by its own RMS is ±1 whatever the network's answer is, so that two may agree.
    """
    params = jax.tree.map(lambda s: jnp.ones(s), NAMED, is_leaf=lambda s: isinstance(s, tuple))
    keys = iter(jax.random.split(jax.random.key(0), 20))
    grads = jax.tree.map(lambda p: jax.random.normal(next(keys), p.shape), params)
    one, *others = (first_update(learned, noisy_theta(learned, seed), params, grads) for seed in range(1, 7))
    same = jax.tree.map(lambda a, *b: all(np.array_equal(a, x) for x in b), one, *others)
    paths = jax.tree_util.tree_leaves_with_path(same)
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, equal in paths if equal}


VECTORS = {"block/attention_head/bias", "block/scale"}
ENDS = {"Embed_0/embedding", "lm_head/kernel"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, VECTORS | ENDS),
        pytest.param({"adam_paths": None}, VECTORS, marks=pytest.mark.slow),
        pytest.param({"adam_below_rank": 0}, ENDS, marks=pytest.mark.slow),
        pytest.param(
            {"adam_below_rank": 0, "adam_paths": r"k.*/kernel$"},
            {"block/attention_head/kernel"},
            marks=pytest.mark.slow,
        ),
        pytest.param({"adam_below_rank": 0, "adam_paths": None}, set(), marks=pytest.mark.slow),
    ],
)
def test_adam_trains_vectors_and_the_ends_of_a_model(changes: dict[str, Any], expected: set[str]) -> None:
    assert trained_by_adam(Celo2Config(variant="orthogonalized", **changes).build()) == expected


@pytest.mark.slow
def test_the_normalized_variant_trains_everything_with_the_network() -> None:
    assert trained_by_adam(Celo2Config().build()) == set()


@pytest.mark.parametrize("variant", fast_for("normalized", among=list(VARIANTS.values())))
def test_a_user_may_say_which_leaves_adam_trains(variant: Any) -> None:
    marks = {
        "Embed_0": False,
        "block": {"attention_head": True, "scale": True},
        "lm_head": False,
        "Dense_3": True,
    }
    expected = {*VECTORS, "block/attention_head/kernel", "Dense_3/kernel"}
    config = Celo2Config(variant=variant)
    assert trained_by_adam(Celo2(config, adam_leaves=marks)) == expected
    assert trained_by_adam(Celo2(config, adam_leaves=lambda params: marks)) == expected


def test_adam_is_optax_adamw() -> None:
    config = Celo2Config(
        variant="orthogonalized", learning_rate=1e-3, adam_multiplier=5.0, weight_decay=0.1, final_fraction=1.0,
        warmup_fraction=0.0,
    )  # fmt: skip
    params = {"bias": jnp.linspace(-1.0, 1.0, 6), "embedding": jnp.linspace(0.0, 2.0, 12).reshape(3, 4)}
    learned = config.build()
    mine = learned.transform(noisy_theta(learned), num_steps=50)
    theirs = optax.adamw(5e-3, b1=0.9, b2=0.95, eps=0.0, eps_root=1e-16, weight_decay=0.1)
    ours, other = (params, mine.init(params)), (params, theirs.init(params))
    for t in range(5):
        grads = jax.tree.map(lambda p, t=t: jnp.cos(3.0 * p + t), params)
        updates, state = mine.update(grads, ours[1], ours[0])
        ours = (optax.apply_updates(ours[0], updates), state)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 and float32 itself
            updates, state = theirs.update(grads, other[1], other[0])
        other = (optax.apply_updates(other[0], updates), state)
    for name in params:
        np.testing.assert_allclose(ours[0][name], other[0][name], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_released_pairs_with_the_released_adam() -> None:
    config = Celo2Config.released("orthogonalized", adam_paths=r"/b$")
    params = {"layer": {"b": jnp.zeros((3,)), "w": jnp.ones((3, 3))}}
    learned = config.build()
    optimizer = learned.transform(noisy_theta(learned), num_steps=9)
    state, momentum, second = optimizer.init(params), np.zeros(3), np.zeros(3)
    for t in range(4):
        grad = np.asarray([1e-6, 0.3, -20.0]) * (t + 1)
        grads = {"layer": {"b": jnp.asarray(grad, jnp.float32), "w": jnp.eye(3)}}
        updates, state = optimizer.update(grads, state, params)
        momentum = 0.9 * momentum + 0.1 * grad
        second = 0.95 * second + 0.05 * grad**2
        np.testing.assert_allclose(updates["layer"]["b"], 20 * momentum / np.sqrt(second + 1e-8), rtol=1e-5)
