"""The convolutional nets of evaluation tasks: channels per layer, normalisation after the activation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from pydantic import ValidationError

from lopt.config import derive
from lopt.types import TaskState
from task_generator import TaskConfig, parse_task_config
from task_generator.families.conv import LHOPT_PRIOR, ConvConfig

EXAMPLE = ConvConfig.example()
VELODROME = {
    "hidden_sizes": [4, 6, 5],
    "num_stride_2_layers": 1,
    "image_size": 7,
    "batch_size": 8,
    "dataset": "digits",
    "activation": "relu",
    "initializer": "normal",
}
NORMALIZATIONS = ["none", "layer_norm", "batch_norm"]


def _reference(params: Any, images: jax.Array, strides: tuple[int, ...], kind: str) -> np.ndarray:
    """Returns the logits, by XLA's convolution and NumPy in float64."""
    x = np.asarray(images, np.float64)
    name = {"layer_norm": "LayerNorm", "batch_norm": "BatchNorm"}.get(kind, "")
    for layer, stride in enumerate(strides):
        conv = params[f"Conv3x3_{layer}"]
        convolved = lax.conv_general_dilated(
            jnp.asarray(x, jnp.float32),
            conv["kernel"],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = np.maximum(np.asarray(convolved, np.float64) + np.asarray(conv["bias"]), 0)
        if name:
            axes: Any = -1 if kind == "layer_norm" else (0, 1, 2)
            x = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
            norm = params[f"{name}_{layer}"]
            x = x * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
    head = params["Dense_0"]
    return x.mean((1, 2)) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_layers_convolve_activate_and_then_normalise(kind: str) -> None:
    config = ConvConfig.model_validate(VELODROME | {"normalization": kind})
    assert config.strides == (2, 1, 1)
    key = jax.random.key(0)
    task = config.build().task(config.sample_dynamic(key))
    state, batch = jax.jit(task.init)(key), task.batch(key)
    # Scales and offsets other than 1 and 0, which would hide a missing one.
    params = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), state.params)
    loss, after = jax.jit(task.loss)(state._replace(params=params), key, batch)
    logits = _reference(params, batch.images, config.strides, kind)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(8), np.asarray(batch.labels)]
    assert float(loss) == pytest.approx(expected.mean(), rel=1e-4)
    assert bool(jax.tree.leaves(after.model_state)) == (kind == "batch_norm")


@pytest.mark.parametrize("kind", NORMALIZATIONS)
@pytest.mark.parametrize("activation", ["relu", "prelu"])
def test_variants_are_counted_right_shown_held_out_and_read_back(kind: str, activation: str) -> None:
    family = ConvConfig.model_validate(VELODROME | {"normalization": kind, "activation": activation})
    config = TaskConfig(family=family)
    built = config.build()
    shapes = jax.eval_shape(lambda k: built.task(built.sample_dynamic(k)).init(k).params, jax.random.key(0))
    assert shapes["Conv3x3_1"]["kernel"].shape == (3, 3, 4, 6)
    assert config.approximate_cost()["num_params"] == sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert config.label.startswith("conv 4x6x5/1 · digits 7px · batch 8")
    assert (kind in config.label) == (kind != "none")
    assert activation in config.label
    assert not family.overrides_could_be_sampled()
    assert parse_task_config(config.canonical_json()) == config


def test_work_is_counted_by_what_each_layer_does() -> None:
    config = ConvConfig.model_validate(VELODROME)
    products = 16 * 9 * (1 * 4 + 4 * 6 + 6 * 5) + 5 * 10  # sides of 4 after the stride; the head
    assert config.approximate_cost()["flops_per_step"] == 6 * products * 8


def test_defaults_stay_out_of_the_json_and_the_prior_draws_none_of_it() -> None:
    added = {"normalization", "hidden_sizes"}
    assert not added & set(EXAMPLE.model_dump(mode="json"))
    assert not added & set(EXAMPLE.prior())
    assert EXAMPLE.overrides_could_be_sampled()
    assert not derive(EXAMPLE, normalization="layer_norm").overrides_could_be_sampled()


def test_vmapped_low_precision_parameters_equal_a_loop() -> None:
    config = ConvConfig.model_validate(VELODROME | {"normalization": "batch_norm"})
    key = jax.random.key(0)
    task = config.build().task(config.sample_dynamic(key))
    batch = task.batch(key)
    low = batch._replace(images=batch.images.astype(jnp.bfloat16))
    states = jax.jit(jax.vmap(task.init))(jax.random.split(key, 2))
    states = states._replace(params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), states.params))

    def loss(state: TaskState) -> tuple[jax.Array, TaskState]:
        return task.loss(state, key, low)

    together, after = jax.jit(jax.vmap(loss))(states)
    assert together.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(after.model_state)} == {jnp.dtype(jnp.float32)}
    for i in range(2):
        alone = jax.jit(loss)(jax.tree.map(lambda x, i=i: x[i], states))[0]
        assert float(together[i]) == pytest.approx(float(alone), rel=0.02)  # bfloat16 sums in any order


def test_lhopts_prior_draws_all_of_appendix_h_and_every_draw_is_valid() -> None:
    rng = np.random.default_rng(0)
    draws = [
        ConvConfig.model_validate({name: prior.sample(rng) for name, prior in LHOPT_PRIOR.items()})
        for _ in range(100)
    ]
    assert len({draw.activation for draw in draws}) == 5
    assert {draw.normalization for draw in draws} == set(NORMALIZATIONS)
    assert {draw.image_size for draw in draws} == {28}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_size": 5}, "means hidden_size=6, got hidden_size=5"),
        ({"num_layers": 2}, "means num_layers=3, got num_layers=2"),
        ({"num_stride_2_layers": 3}, "leaves no pixel to stride over"),
        ({"normalization": "layer_norm", "hidden_sizes": [4, 1]}, "single channel"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ConvConfig.model_validate(VELODROME | changes)
