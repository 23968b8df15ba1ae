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

from lopt.types import SPLITS, TaskFamily, TaskState
from task_generator import TaskConfig, parse_task_config
from task_generator.augmentations import ReparametrizeConfig
from task_generator.families import FAMILIES

SMALL = {"image_size": 5, "batch_size": 3, "hidden_size": 6, "num_layers": 1}


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
    """Draws one dynamic configuration per key; the first one's value stands where the axis is None."""
    draws = jax.jit(jax.vmap(family.sample_dynamic))(keys)
    return jax.tree.map(
        lambda axis, subtree: jax.tree.map(lambda x: x[0], subtree) if axis is None else subtree,
        family.dynamic_axes(),
        draws,
        is_leaf=lambda axis: axis is None,
    )


def _at(axes: Any, stacked: Any, index: int) -> Any:
    return jax.tree.map(
        lambda axis, subtree: subtree if axis is None else jax.tree.map(lambda x: x[index], subtree),
        axes,
        stacked,
        is_leaf=lambda axis: axis is None,
    )


# The augmented half contains the family itself, and compiling is what takes the time.
@pytest.mark.parametrize("config", CONFIGS[1::2], ids=lambda c: c.label)
def test_vmap_over_dynamic_equals_a_loop_and_all_is_finite(config: TaskConfig) -> None:
    family = config.build()
    keys = jax.random.split(jax.random.key(0), 2)
    axes, stacked = family.dynamic_axes(), _stack(family, keys)

    def step(dynamic: Any, key: jax.Array) -> Any:
        return _loss_and_grad(family, dynamic, key)

    together = jax.jit(jax.vmap(step, in_axes=(axes, 0)))(stacked, keys)
    alone = jax.jit(step)
    for i, key in enumerate(keys):
        loss, grads = alone(_at(axes, stacked, i), key)
        assert loss.shape == ()
        assert loss.dtype == jnp.float32
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((loss, grads))]
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        assert any((leaf != 0).any() for leaf in leaves[1:])
        for a, b in zip(jax.tree.leaves(together), leaves, strict=True):
            np.testing.assert_allclose(a[i], b, rtol=2e-4, atol=1e-5)


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
def test_a_constant_guess_has_a_normalised_loss_of_one_and_the_worst_is_capped(name: str) -> None:
    fixed = {"dataset": "digits", "num_stride_2_layers": 0, "activation": "tanh", "log_loss": False}
    fixed |= {"center_data": False, "constrain_output": False, **SMALL, "batch_size": 2048}
    known = {field: value for field, value in fixed.items() if field in FAMILIES[name].model_fields}
    family = TaskConfig(family=FAMILIES[name].model_validate(known)).build()
    key = jax.random.key(0)
    task = family.task(family.sample_dynamic(key))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(task.init, key).params)
    batch = task.batch(key)
    if name == "autoencoder":  # the best constant guess: the mean image
        params["Dense_1"]["bias"] = batch.images.mean(axis=0).ravel()
    loss = task.loss(TaskState(params), key, batch)[0]
    assert float(task.normalize(loss)) == pytest.approx(1.0, abs=0.03 if name == "autoencoder" else 1e-5)
    assert [float(task.normalize(jnp.float32(x))) for x in (jnp.nan, jnp.inf, 1e30)] == [10.0] * 3


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
