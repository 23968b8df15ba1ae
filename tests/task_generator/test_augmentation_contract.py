"""What every task augmentation must do, for every registered one, alone and with each of the others."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_tasks import ToyFamily

from lopt.inner_loop import init_inner, inner_step, unroll
from lopt.training_gradient import value_and_grad
from lopt.types import TaskFamily
from task_generator import TaskConfig, parse_task_config
from task_generator.augmentations import AUGMENTATIONS, AugmentationConfig
from task_generator.families import MlpConfig

KEY = jax.random.key(0)
SGD = optax.sgd(0.05)
every_augmentation = pytest.mark.parametrize("name", AUGMENTATIONS)
with_and_without_state = pytest.mark.parametrize("has_state", [True, False], ids=["state", "stateless"])


def draw(name: str, seed: int = 0) -> AugmentationConfig:
    """The prior's first draw that isn't "none"."""
    rng = np.random.default_rng(seed)
    return next(
        drawn for drawn in (AUGMENTATIONS[name].sample(rng) for _ in range(1000)) if drawn is not None
    )


def apply(family: TaskFamily, *names: str) -> TaskFamily:
    for name in names:
        family = draw(name).apply(family)
    return family


@every_augmentation
def test_draws_of_the_prior_are_in_its_support_and_read_back_from_json(name: str) -> None:
    for seed in range(20):
        config = draw(name, seed)
        assert config.augmentation == name
        assert config.could_sample()
        task = TaskConfig(family=MlpConfig.example(), augmentations=(config,))
        again = parse_task_config(task.canonical_json())
        assert again == task
        assert hash(again) == hash(task)
        assert again.fingerprint() == task.fingerprint()
        assert config.label() in task.label


@every_augmentation
@with_and_without_state
def test_unrolling_in_a_program_is_stepping_from_python(name: str, has_state: bool) -> None:
    """Also: types and structure of the state are stable, or `fori_loop` refuses."""
    family = apply(ToyFamily(has_state=has_state, noise=1.0), name)
    task = family.task(family.sample_dynamic(KEY))
    start = state = init_inner(task, SGD, KEY)
    step = jax.jit(lambda state, key: inner_step(task, SGD, state, key)[0])
    for t in range(4):
        state = step(state, jax.random.fold_in(KEY, t))
    together = jax.jit(lambda state, stop: unroll(task, SGD, state, KEY, start=0, stop=stop))(start, 4)
    assert jax.tree.structure(together) == jax.tree.structure(state)
    assert not np.array_equal(_flat(together.task_state.params), _flat(start.task_state.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(_wide(a), _wide(b), rtol=1e-5), together, state)


@every_augmentation
def test_vmap_over_dynamic_configurations_is_a_loop(name: str) -> None:
    family = apply(ToyFamily(), name)
    axes = family.dynamic_axes()
    draws = jax.vmap(family.sample_dynamic)(jax.random.split(KEY, 3))
    is_none = lambda axis: axis is None
    pick = lambda i: jax.tree.map(
        lambda axis, tree: jax.tree.map(lambda x: x[0 if axis is None else i], tree),
        axes,
        draws,
        is_leaf=is_none,
    )
    stacked = jax.tree.map(
        lambda axis, tree: jax.tree.map(lambda x: x[0], tree) if axis is None else tree,
        axes,
        draws,
        is_leaf=is_none,
    )

    def shown(dynamic: Any, key: jax.Array) -> Any:
        task = family.task(dynamic)
        state, batch = task.init(key), task.batch(key)
        return value_and_grad(task, state, key, batch), task.loss(state, key, batch)

    keys = jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(shown, in_axes=(axes, 0)))(stacked, keys)
    alone = jax.jit(shown)
    for i in range(3):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(_wide(a)[i], _wide(b), rtol=1e-4, atol=1e-5),
            together,
            alone(pick(i), keys[i]),
        )


@with_and_without_state
@pytest.mark.parametrize("first", AUGMENTATIONS)
def test_any_two_compose_in_either_order(first: str, has_state: bool) -> None:
    """Traced, not computed: the loss is a float32 scalar, gradients are like parameters, and loops accept it."""
    for second in AUGMENTATIONS:
        family = apply(ToyFamily(has_state=has_state), first, second)
        task = family.task(family.sample_dynamic(KEY))

        def shown(key: jax.Array, task: Any = task) -> Any:
            state = unroll(task, SGD, init_inner(task, SGD, key), key, start=0, stop=3).task_state
            return state, value_and_grad(task, state, key, task.batch(key))

        state, ((loss, after), grads) = jax.eval_shape(shown, KEY)
        assert (loss.shape, loss.dtype) == ((), jnp.float32)
        assert after == state
        assert grads == state.params


@pytest.mark.slow
def test_normalising_last_shows_the_direction_of_what_any_other_shows() -> None:
    for name in AUGMENTATIONS:
        if name == "low_precision":  # a norm of one in eight bits
            continue
        plain, unit = apply(ToyFamily(), name), apply(ToyFamily(), name, "normalized_gradient")
        dynamic = plain.sample_dynamic(KEY)
        state, batch = plain.task(dynamic).init(KEY), plain.task(dynamic).batch(KEY)
        (_, grads), (_, direction) = (
            value_and_grad(f.task(dynamic), state, KEY, batch) for f in (plain, unit)
        )
        expected = _flat(grads) / np.linalg.norm(_flat(grads))
        np.testing.assert_allclose(_flat(direction), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
def test_all_together_train_a_network_vectorised_over_dynamic_configurations(reverse: bool) -> None:
    names = list(AUGMENTATIONS)[:: -1 if reverse else 1]
    config = MlpConfig(
        hidden_size=8,
        num_layers=1,
        image_size=4,
        batch_size=64,
        dataset="digits",
        activation="tanh",
        initializer="normal",
    )
    family = TaskConfig(family=config, augmentations=tuple(draw(name) for name in names)).build()
    dynamic = family.sample_dynamic(KEY)
    axes = family.dynamic_axes()
    stacked = jax.tree.map(
        lambda axis, tree: tree if axis is None else jax.tree.map(lambda x: jnp.stack([x, x]), tree),
        axes,
        dynamic,
        is_leaf=lambda axis: axis is None,
    )

    def trained(family: TaskFamily, dynamic: Any, key: jax.Array) -> Any:
        task = family.task(dynamic)
        state = unroll(task, SGD, init_inner(task, SGD, KEY), key, start=0, stop=5).task_state
        return task.init(KEY).params, state.params, task.loss(state, key, task.batch(key))[0]

    run = jax.jit(jax.vmap(trained, in_axes=(None, axes, 0)))
    before, after, loss = run(family, stacked, jax.random.split(KEY, 2))
    assert np.isfinite(np.asarray(loss)).all()
    assert loss[0] != loss[1]
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(after))
    assert any(
        (_wide(a) != _wide(b)).any() for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "probability"),
    [
        ("reparametrize", 5 / 7),
        ("es_gradients", 0.08),
        ("reduced_batch", 0.2),
        ("low_precision", 0.2),
        ("normalized_gradient", 0.05),
        ("subsampled_directions", 0.08),
        ("delayed_gradients", 0.05),
    ],
)
def test_each_is_drawn_as_often_as_in_the_paper(name: str, probability: float) -> None:
    rng, count = np.random.default_rng(1), 4000
    applied = sum(AUGMENTATIONS[name].sample(rng) is not None for _ in range(count))
    assert abs(applied / count - probability) < 4 * np.sqrt(probability * (1 - probability) / count)


def test_the_registry_is_in_the_papers_order() -> None:
    order = ["reparametrize", "es_gradients", "reduced_batch", "low_precision", "normalized_gradient"]
    order += ["subsampled_directions", "delayed_gradients"]
    assert [name for name in AUGMENTATIONS if name in order] == order
    assert len(set(itertools.chain(AUGMENTATIONS, order))) == len(AUGMENTATIONS)


def _wide(leaf: Any) -> np.ndarray:
    return np.asarray(leaf, np.float64)


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([_wide(leaf).ravel() for leaf in jax.tree.leaves(tree)])
