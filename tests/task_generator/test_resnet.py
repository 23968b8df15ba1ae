"""Residual networks against a float64 forward pass written independently, their state, and their sizes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from pydantic import ValidationError

from task_generator.families.network import variable_shapes
from task_generator.families.resnet import BlocksPerGroup, ResNetConfig
from task_generator.networks.patches import max_pool, windows
from task_generator.networks.resnet import BLOCKS


def _config(**changes: Any) -> ResNetConfig:
    return ResNetConfig.model_validate({**ResNetConfig.example().model_dump(), **changes})


@pytest.mark.parametrize(("side", "size", "stride"), [(8, 3, 2), (5, 5, 1), (7, 7, 2), (2, 7, 2), (5, 1, 2)])
def test_windows_times_kernel_is_the_convolution(side: int, size: int, stride: int) -> None:
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, side, side, 3)), rng.normal(size=(size, size, 3, 4))
    x, kernel = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    expected = lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(windows(x, size, stride) @ kernel.reshape(-1, 4), expected, atol=1e-4)


@pytest.mark.parametrize("side", [1, 4, 7])
def test_max_pool_is_the_largest_of_each_window(side: int) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, side, side, 3)) - 5.0, jnp.float32)
    window = ((1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    np.testing.assert_array_equal(max_pool(x), lax.reduce_window(x, -jnp.inf, lax.max, *window))


def _norm(x: np.ndarray, params: Any) -> np.ndarray:
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]


def _conv(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """A loop over output pixels; pads an even side of stride 2 behind only, as "SAME" does."""
    size, side = kernel.shape[0], x.shape[1]
    out_side = -(-side // stride)
    pad = max((out_side - 1) * stride + size - side, 0)
    padded = np.pad(x, ((0, 0), *((pad // 2, pad - pad // 2),) * 2, (0, 0)))
    out = np.zeros((x.shape[0], out_side, out_side, kernel.shape[-1]))
    for i in range(out_side):
        for j in range(out_side):
            window = padded[:, i * stride : i * stride + size, j * stride : j * stride + size]
            out[:, i, j] = np.einsum("bhwc,hwcf->bf", window, kernel)
    return out


def _reference_block(version: str, x: np.ndarray, p: Any, stride: int) -> np.ndarray:
    conv = lambda y, name, s: _conv(y, p[name]["kernel"], s)
    if version == "v1":
        y = np.tanh(_norm(conv(x, "conv_0", 1), p["norm_0"]))
        y = np.tanh(_norm(conv(y, "conv_1", stride), p["norm_1"]))
        y = _norm(conv(y, "conv_2", 1), p["norm_2"])
        return np.tanh(y + _norm(conv(x, "shortcut_conv", stride), p["shortcut_norm"]))
    first = np.tanh(_norm(x, p["norm_0"]))
    y = np.tanh(_norm(conv(first, "conv_0", 1), p["norm_1"]))
    y = np.tanh(_norm(conv(y, "conv_1", stride), p["norm_2"]))
    return conv(y, "conv_2", 1) + conv(first, "shortcut_conv", stride)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_block_is_what_its_formula_says(version: str) -> None:
    rng = np.random.default_rng(0)
    block = BLOCKS[version](8, 2, use_projection=True)
    x = rng.normal(size=(3, 4, 4, 5))
    shapes, collections = variable_shapes(block, jax.ShapeDtypeStruct(x.shape, jnp.float32))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), collections)
    out, _ = block.apply(
        {"params": single, **state}, jnp.asarray(x, jnp.float32), jnp.tanh, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(out, _reference_block(version, x, params, 2), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_loss_starts_at_chance_and_the_state_decays_by_a_tenth(version: str) -> None:
    task = _config(version=version).build().task(None)
    key = jax.random.key(0)
    state, batch = jax.jit(task.init)(key), task.batch(key)
    loss_fn = jax.jit(task.loss)
    loss, after = loss_fn(state, key, batch)
    assert float(loss) == pytest.approx(math.log(10), rel=1e-6)
    again = loss_fn(after, key, batch)[1].model_state["batch_stats"]
    name = "initial_norm" if version == "v1" else "group_0_block_0"
    pick = lambda tree: tree[name] if version == "v1" else tree[name]["norm_0"]
    start, first, second = (
        pick(t) for t in (state.model_state["batch_stats"], after.model_state["batch_stats"], again)
    )
    np.testing.assert_array_equal(start["var"], 1.0)
    for field in ("mean", "var"):  # the batch is the same: 0.9 · (0.9 · a + 0.1 · b) + 0.1 · b
        statistic = (np.asarray(first[field]) - 0.9 * np.asarray(start[field])) / 0.1
        assert np.abs(statistic - np.asarray(start[field])).max() > 1e-3
        expected = 0.81 * np.asarray(start[field]) + 0.19 * statistic
        np.testing.assert_allclose(second[field], expected, rtol=1e-4, atol=1e-6)


def test_where_scales_start_at_zero_and_that_every_block_can_learn() -> None:
    for version, value in (("v1", 0.0), ("v2", 1.0)):
        params = jax.jit(_config(version=version).build().task(None).init)(jax.random.key(0)).params
        np.testing.assert_array_equal(params["group_2_block_0"]["norm_2"]["scale"], value)
        np.testing.assert_array_equal(params["logits"]["kernel"], 0.0)
        assert float(jnp.abs(params["group_2_block_0"]["conv_1"]["kernel"]).min()) > 0


def test_the_activation_acts_in_the_blocks() -> None:
    block = BLOCKS["v1"](8)
    x = jax.random.normal(jax.random.key(0), (2, 2, 2, 8))
    shapes, collections = variable_shapes(block, jax.ShapeDtypeStruct(x.shape, jnp.float32))
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), {"params": shapes, **collections})
    calls: list[tuple[int, ...]] = []

    def spy(y: jax.Array) -> jax.Array:
        calls.append(y.shape)
        return y

    block.apply(variables, x, spy, mutable=["batch_stats"])
    assert calls == [(2, 2, 2, 2), (2, 2, 2, 2), (2, 2, 2, 8)]


def test_the_stem_s_stride_is_honoured() -> None:
    wide = _config(initial_conv_stride=1, image_size=16)
    assert wide.group_sides == (16, 16, 8, 4, 2)
    assert _config(image_size=8, max_pool=True).group_sides == (2, 2, 1, 1, 1)
    assert (
        wide.approximate_cost()["flops_per_step"]
        > 3 * _config(image_size=16).approximate_cost()["flops_per_step"]
    )


def test_parameter_counts_of_the_evaluation_sizes() -> None:
    # Resnet_MultiRuntime_0, by hand: stem 3·3·3·64; a group of width c into w with n = w/4 has kernels
    # c·n + 9·n² + n·w + c·w and norms 2·(c + 2n); the final norm 2·16; logits 16·1000 + 1000.
    widths = [64, 8, 16, 16, 16]
    groups = sum(
        c * (w // 4) + 9 * (w // 4) ** 2 + (w // 4) * w + c * w + 2 * (c + 2 * (w // 4))
        for c, w in itertools.pairwise(widths)
    )
    config = _config(
        version="v2",
        base_channels=8,
        width_pattern="1-2-2-2",
        initial_conv_channels=64,
        max_pool=True,
        image_size=16,
        batch_size=64,
        dataset="imagenet16",
    )
    assert config.approximate_cost()["num_params"] == 27 * 64 + groups + 32 + 17_000


def test_the_prior_of_blocks() -> None:
    prior, rng = BlocksPerGroup(), np.random.default_rng(0)
    draws = np.array([prior.sample(rng) for _ in range(4000)])
    assert all(prior.contains(tuple(draw.tolist())) for draw in draws[:50])
    assert not prior.contains((1, 1, 1, 11))
    assert not prior.contains((1, 1, 1))
    assert (draws.min(), draws.max()) == (1, 10)
    # m has probability ln((m + 1) / m) / ln 11 and a count has mean (m + 1) / 2 given m.
    m = np.arange(1, 11)
    mean = np.sum(np.log((m + 1) / m) / math.log(11) * (m + 1) / 2)
    assert abs(draws.mean() - mean) < 4 * draws.mean(axis=1).std() / math.sqrt(len(draws))


def test_what_leaves_batch_norm_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="batch norm needs more than one number per channel"):
        _config(batch_size=1)
    with pytest.raises(ValidationError, match="`blocks_per_group` must hold"):
        _config(blocks_per_group=(1, 0, 1, 1))
