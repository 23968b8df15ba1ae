"""What every task family must do, for every registered family and several sampled configurations."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.types import SPLITS, TaskFamily
from task_generator import TaskConfig, parse_task_config
from task_generator.augmentations import ReparametrizeConfig
from task_generator.families import FAMILIES

SMALL = {"image_size": 5, "batch_size": 3, "hidden_size": 6}


def _sampled(name: str, seed: int) -> TaskConfig:
    """A draw from the family's prior, with sizes cut down so that the test is quick."""
    rng = np.random.default_rng(seed)
    fields = {field: prior.sample(rng) for field, prior in FAMILIES[name].prior().items()}
    scaled = (ReparametrizeConfig(level="tensor", low=0.1, high=10.0),) if seed % 2 else ()
    return TaskConfig(family=FAMILIES[name].model_validate({**fields, **SMALL}), augmentations=scaled)


CONFIGS = [_sampled(name, seed) for name in FAMILIES for seed in range(2)]
config_cases = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.label)


def _loss_and_grad(family: TaskFamily, dynamic: Any, key: jax.Array) -> Any:
    task = family.task(dynamic)
    state, batch = task.init(key), task.batch(key)
    return jax.value_and_grad(lambda p: task.loss(state._replace(params=p), key, batch)[0])(state.params)


def _stack(family: TaskFamily, keys: jax.Array) -> Any:
    """Dynamic draws stacked as the axes say: the first task's value stands where the axis is None."""
    draws = [family.sample_dynamic(key) for key in keys]
    axes = family.dynamic_axes()
    return jax.tree.map(
        lambda axis, *subtrees: (
            subtrees[0] if axis is None else jax.tree.map(lambda *x: jnp.stack(x), *subtrees)
        ),
        axes,
        *draws,
        is_leaf=lambda axis: axis is None,
    )


def _at(axes: Any, stacked: Any, index: int) -> Any:
    return jax.tree.map(
        lambda axis, subtree: subtree if axis is None else jax.tree.map(lambda x: x[index], subtree),
        axes,
        stacked,
        is_leaf=lambda axis: axis is None,
    )


@config_cases
def test_vmap_over_dynamic_equals_a_loop(config: TaskConfig) -> None:
    family = config.build()
    keys = jax.random.split(jax.random.key(0), 3)
    axes, stacked = family.dynamic_axes(), _stack(family, keys)
    step = lambda dynamic, key: _loss_and_grad(family, dynamic, key)  # noqa: E731 - vmapped and jitted below
    together = jax.jit(jax.vmap(step, in_axes=(axes, 0)))(stacked, keys)
    alone = jax.jit(step)
    for i in range(3):
        one = alone(_at(axes, stacked, i), keys[i])
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=2e-4, atol=1e-5), together, one
        )


@config_cases
def test_the_first_loss_and_gradient_are_finite_and_not_all_zero(config: TaskConfig) -> None:
    family = config.build()
    key = jax.random.key(1)
    loss, grads = jax.jit(lambda k: _loss_and_grad(family, family.sample_dynamic(k), k))(key)
    assert loss.shape == ()
    assert loss.dtype == jnp.float32
    assert bool(jnp.isfinite(loss))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))
    assert any(bool((leaf != 0).any()) for leaf in jax.tree.leaves(grads))


@config_cases
def test_batches_are_pure_and_splits_differ(config: TaskConfig) -> None:
    family = config.build()
    task = family.task(family.sample_dynamic(jax.random.key(0)))
    first, again = task.batch(jax.random.key(3)), task.batch(jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first.images, task.batch(jax.random.key(4)).images)
    seen = [np.asarray(task.batch(jax.random.key(3), split).images).tobytes() for split in SPLITS]
    assert len(set(seen)) == len(SPLITS)


@config_cases
def test_json_reads_back_as_the_same_configuration(config: TaskConfig) -> None:
    again = parse_task_config(config.canonical_json())
    assert again == config
    assert hash(again) == hash(config)
    assert TaskConfig.model_validate_json(config.model_dump_json()) == config
    assert again.build() is config.build()


@config_cases
def test_num_params_is_counted_right(config: TaskConfig) -> None:
    family = config.build()
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda k: family.task(family.sample_dynamic(k)).init(k).params, key)
    assert config.approximate_cost()["num_params"] == sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", FAMILIES)
def test_normalised_losses_are_about_one_at_chance_and_capped(name: str) -> None:
    fields = {"num_layers": 1, "num_stride_2_layers": 0, "init_scale": 0.5, "activation": "tanh"}
    fields |= {"dataset": "digits", "log_loss": False, "center_data": False, "initializer": "normal", **SMALL}
    known = {k: v for k, v in fields.items() if k in FAMILIES[name].model_fields}
    family = TaskConfig(family=FAMILIES[name].model_validate({**known, "batch_size": 256})).build()
    key = jax.random.key(0)
    task = family.task(family.sample_dynamic(key))
    state = task.init(key)
    # All parameters zero: equal probabilities for each class, or a black or grey image.
    zeros = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
    chance = float(task.normalize(task.loss(zeros, key, task.batch(key))[0]))
    assert 0.9 < chance < 6
    if name != "autoencoder":
        assert chance == pytest.approx(1.0, abs=1e-5)
    worst = [float(task.normalize(jnp.float32(x))) for x in (jnp.nan, jnp.inf, 1e30)]
    assert worst == [10.0, 10.0, 10.0]


def test_fingerprints_are_the_same_in_another_process() -> None:
    code = (
        "import sys; from task_generator import parse_task_config\n"
        "for line in sys.stdin: print(parse_task_config(line).fingerprint())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        input="\n".join(config.model_dump_json() for config in CONFIGS),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.stdout.split() == [config.fingerprint() for config in CONFIGS]
