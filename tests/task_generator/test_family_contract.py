"""What every task family must do, for every registered family and several sampled configurations."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from lopt.training_gradient import value_and_grad
from lopt.types import SPLITS, TaskState
from task_generator import TaskConfig, parse_task_config
from task_generator.augmentations import ReparametrizeConfig
from task_generator.augmentations.low_precision import LowPrecisionConfig
from task_generator.families import FAMILIES
from task_generator.families.base import NORMALIZED_CAP, DataFamilyConfig

SCALED = ReparametrizeConfig(level="tensor", low=0.1, high=10.0)
PLAIN = [TaskConfig(family=family.example()) for family in FAMILIES.values()]
AUGMENTED = [TaskConfig(family=config.family, augmentations=(SCALED,)) for config in PLAIN]
CONFIGS = PLAIN + AUGMENTED
config_cases = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.label)


@pytest.mark.parametrize("config", PLAIN, ids=lambda c: c.label)
def test_batches_are_pure_and_splits_differ(config: TaskConfig) -> None:
    family = config.build()
    task = family.task(jax.jit(family.sample_dynamic)(jax.random.key(0)))
    first, again = task.batch(jax.random.key(3)), task.batch(jax.random.key(3))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(_raw(a), _raw(b)), first, again)
    if not jax.tree.leaves(first):
        return  # a problem without data
    contents = lambda batch: b"".join(np.asarray(_raw(leaf)).tobytes() for leaf in jax.tree.leaves(batch))
    assert contents(first) != contents(task.batch(jax.random.key(4)))
    if isinstance(config.family, DataFamilyConfig):
        seen = [contents(task.batch(jax.random.key(3), split)) for split in SPLITS]
        assert len(set(seen)) == len(SPLITS)


def _raw(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


@config_cases
def test_json_reads_back_as_the_same_configuration(config: TaskConfig) -> None:
    again = parse_task_config(config.canonical_json())
    assert again == config
    assert hash(again) == hash(config)
    assert TaskConfig.model_validate_json(config.model_dump_json()) == config
    assert again.build() is config.build()


def _num_params(config: TaskConfig) -> int:
    family = config.build()
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda k: family.task(family.sample_dynamic(k)).init(k).params, key)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", FAMILIES)
def test_num_params_is_counted_right_and_every_draw_of_the_prior_builds(name: str) -> None:
    rng = np.random.default_rng(0)
    drawn: list[TaskConfig] = []
    while len(drawn) < 6:
        fields = {field: prior.sample(rng) for field, prior in FAMILIES[name].prior().items()}
        with contextlib.suppress(ValidationError):  # what contradicts itself is drawn again in sampling, too
            drawn.append(TaskConfig(family=FAMILIES[name].model_validate(fields)))
    for config in (TaskConfig(family=FAMILIES[name].example()), *drawn):
        assert config.approximate_cost()["num_params"] == _num_params(config)


@pytest.mark.parametrize("config", PLAIN, ids=lambda c: c.label)
def test_bfloat16_parameters_give_a_float32_loss_and_bfloat16_gradients(config: TaskConfig) -> None:
    """Traced only: under strict promotion that shows every constant that would widen the computation."""
    family = TaskConfig(family=config.family, augmentations=(LowPrecisionConfig(),)).build()

    def first_step(key: jax.Array) -> Any:
        task = family.task(family.sample_dynamic(key))
        (loss, after), grads = value_and_grad(task, task.init(key), key, task.batch(key))
        return loss, grads, after

    loss, grads, after = jax.eval_shape(first_step, jax.random.key(0))
    assert loss.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((grads, after.params))} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("config", PLAIN, ids=lambda c: c.label)
def test_the_worst_losses_are_capped(config: TaskConfig) -> None:
    family = config.build()
    task = family.task(jax.jit(family.sample_dynamic)(jax.random.key(1)))
    capped = jax.jit(jax.vmap(task.normalize))(jnp.asarray([jnp.nan, jnp.inf, 1e30]))
    assert capped.tolist() == [NORMALIZED_CAP] * 3


@pytest.mark.parametrize("name", ["mlp", "conv", "autoencoder"])
def test_a_constant_guess_has_a_normalised_loss_of_one(name: str) -> None:
    fixed = {"dataset": "digits", "num_stride_2_layers": 0, "activation": "tanh", "log_loss": False}
    fixed |= {"center_data": False, "constrain_output": False, "batch_size": 2048}
    fixed |= {"image_size": 5, "hidden_size": 6, "num_layers": 1}
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
