"""Vision transformers against a float64 forward pass written independently, their dropout, and their sizes."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import erf

from task_generator.families.network import variable_shapes
from task_generator.families.vit import VitConfig
from task_generator.networks.vit import EncoderLayer, VisionTransformer


def _config(**changes: Any) -> VitConfig:
    return VitConfig.model_validate({**VitConfig.example().model_dump(), **changes})


def _norm(x: np.ndarray, p: Any) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def _reference_layer(x: np.ndarray, p: Any, num_heads: int) -> np.ndarray:
    """One image's tokens [t, hidden], one head at a time."""
    y, attention = _norm(x, p["attention_norm"]), p["attention"]
    attended = np.zeros_like(x)
    for head in range(num_heads):
        q, k, v = (
            y @ attention[name]["kernel"][:, head] + attention[name]["bias"][head]
            for name in ("query", "key", "value")
        )
        scores = np.exp(q @ k.T / math.sqrt(q.shape[-1]))
        attended += scores / scores.sum(-1, keepdims=True) @ v @ attention["out"]["kernel"][head]
    x = x + attended + attention["out"]["bias"]
    y = _norm(x, p["mlp_norm"]) @ p["mlp_in"]["kernel"] + p["mlp_in"]["bias"]
    return x + _gelu(y) @ p["mlp_out"]["kernel"] + p["mlp_out"]["bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + erf(x / math.sqrt(2))) / 2


def _exact_gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


def _network() -> tuple[VisionTransformer, Any, np.ndarray]:
    """Two layers on patches of 2 pixels; images of 5 leave a row and a column over."""
    rng = np.random.default_rng(0)
    network = VisionTransformer(2, 6, 2, 3, 7, 0.0, 0.0, 4)
    images = rng.uniform(size=(2, 5, 5, 3))
    shapes, _ = variable_shapes(network, jax.ShapeDtypeStruct((1, 5, 5, 3), jnp.float32))
    return network, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) * 0.5, shapes), images


def _apply(network: nn.Module, params: Any, images: np.ndarray) -> np.ndarray:
    single = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    apply = jax.jit(lambda params, x: network.apply({"params": params}, x, _exact_gelu))
    return np.asarray(apply(single, np.asarray(images, np.float32)))


def test_the_network_is_what_its_formula_says() -> None:
    network, p, images = _network()
    expected = []
    for image in images:
        tokens = [p["class_token"][0, 0]]
        for i in range(2):
            for j in range(2):
                patch = image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                tokens.append(
                    np.einsum("hwc,hwcf->f", patch, p["embedding"]["kernel"]) + p["embedding"]["bias"]
                )
        x = np.stack(tokens) + p["position_embedding"][0]
        for i in range(2):
            x = _reference_layer(x, p[f"layer_{i}"], num_heads=3)
        expected.append(_norm(x[0], p["encoder_norm"]) @ p["head"]["kernel"] + p["head"]["bias"])
    np.testing.assert_allclose(_apply(network, p, images), expected, rtol=1e-4, atol=1e-4)


def test_positions_and_class_token_matter_and_what_fills_no_patch_does_not() -> None:
    network, p, images = _network()
    out = _apply(network, p, images)
    swapped = images.copy()
    swapped[:, :2, :4] = np.concatenate([images[:, :2, 2:4], images[:, :2, :2]], axis=2)  # two patches
    assert np.abs(_apply(network, p, swapped) - out).max() > 1e-3
    without = {**p, "position_embedding": np.zeros_like(p["position_embedding"])}
    np.testing.assert_allclose(_apply(network, without, swapped), _apply(network, without, images), atol=1e-5)
    assert np.abs(_apply(network, {**p, "class_token": -p["class_token"]}, images) - out).max() > 1e-3
    images[:, 4], images[:, :, 4] = 9.0, -9.0
    np.testing.assert_array_equal(_apply(network, p, images), out)


def test_a_layer_is_equivariant_to_the_order_of_its_tokens() -> None:
    _, p, _ = _network()
    x, order = np.random.default_rng(1).normal(size=(2, 5, 6)), [3, 0, 4, 1, 2]
    layer = EncoderLayer(3, 7)
    out = _apply(layer, p["layer_0"], x)
    np.testing.assert_allclose(_apply(layer, p["layer_0"], x[:, order]), out[:, order], atol=1e-5)


def _drop(rate: float, attention_rate: float) -> np.ndarray:
    """A layer of 64 tokens that adds to them its attention output, a uniform mean of ones; nothing else."""
    hidden = 16
    layer = EncoderLayer(4, 8, rate, attention_rate)
    shapes, _ = variable_shapes(layer, jax.ShapeDtypeStruct((1, 64, hidden), jnp.float32))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    params["attention"]["value"]["bias"] += 1.0
    params["attention"]["out"]["kernel"] += np.eye(hidden, dtype=np.float32).reshape(4, 4, hidden)
    apply = jax.jit(lambda x, key: layer.apply({"params": params}, x, jax.nn.gelu, rngs={"dropout": key}))
    return np.asarray(apply(jnp.zeros((32, 64, hidden)), jax.random.key(0)))


def test_dropout_drops_at_its_rate_and_scales_the_rest() -> None:
    out = _drop(0.3, 0.0)
    dropped = np.mean(out == 0.0)
    assert abs(dropped - 0.3) < 4 * math.sqrt(0.3 * 0.7 / out.size)
    np.testing.assert_allclose(out[out != 0.0], 1 / 0.7, rtol=1e-5)


def test_attention_dropout_drops_attention_weights_only() -> None:
    # Each head's output is the sum of 64 weights 1/64, kept with probability 0.75 and scaled by 1/0.75: all
    # features of a head agree, and they are binomial.
    out = _drop(0.0, 0.25).reshape(32, 64, 4, 4)
    np.testing.assert_allclose(out, np.broadcast_to(out[..., :1], out.shape), rtol=1e-5)
    kept = out[..., 0] * 0.75 * 64
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-3)
    assert abs(kept.mean() - 48) < 4 * math.sqrt(12 / kept.size)
    assert kept.var() == pytest.approx(12, rel=0.08)  # 64 · 0.75 · 0.25; the deviation of a variance is 1.6 %


def test_how_parameters_start() -> None:
    config = _config(heads={"num": 4, "size": 16}, mlp_dim=96)
    task = config.build().task(None)
    key = jax.random.key(0)
    state = jax.jit(task.init)(key)
    params = state.params
    assert float(jax.jit(task.loss)(state, key, task.batch(key))[0]) == pytest.approx(math.log(10), rel=1e-6)
    for name in ("class_token", "head"):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(params[name]))
    assert np.std(params["position_embedding"]) == pytest.approx(0.02, rel=0.15)
    layer = params["layer_0"]
    for kernel, fans in (
        (layer["attention"]["query"]["kernel"], 128),
        (layer["attention"]["out"]["kernel"], 128),
        (layer["mlp_in"]["kernel"], 160),
    ):
        bound = math.sqrt(6 / fans)
        assert 0.98 * bound < np.abs(kernel).max() <= bound
        assert np.std(kernel) == pytest.approx(bound / math.sqrt(3), rel=0.04)
    np.testing.assert_array_equal(layer["mlp_norm"]["scale"], 1.0)
    np.testing.assert_array_equal(layer["attention"]["query"]["bias"], 0.0)


def test_parameter_counts_of_the_evaluation_sizes() -> None:
    # VIT_ImageNet64_skinnydeep, by hand: 16·16·3·128 + 128, a token, 17 positions; ten layers of four 128² and
    # two 128·512 kernels, biases 5·128 + 512 and norms 4·128; a norm; the head.
    sizes = {
        "num_layers": 10,
        "heads": {"num": 4, "size": 32},
        "mlp_dim": 512,
        "patch_size": 16,
        "image_size": 64,
    }
    deep = _config(**sizes, batch_size=128, dataset="imagenet64")
    assert deep.approximate_cost()["num_params"] == 98_432 + 18 * 128 + 10 * 198_272 + 256 + 129_000
    # ViT-S/16's encoder layer has 1 774 464 parameters.
    sizes |= {"num_layers": 1, "heads": {"num": 6, "size": 64}, "mlp_dim": 1536}
    one, two = (_config(**{**sizes, "num_layers": n}).approximate_cost()["num_params"] for n in (1, 2))
    assert two - one == 1_774_464


def test_the_joint_priors() -> None:
    prior, rng = VitConfig.prior(), np.random.default_rng(0)
    heads = [prior["heads"].sample(rng) for _ in range(2000)]
    assert {h["num"] for h in heads} == set(range(1, 17))
    assert max(h["size"] for h in heads if h["num"] < 4) == 64
    assert max(h["size"] for h in heads if h["num"] >= 4) == 32
    assert prior["heads"].contains({"num": 3, "size": 64})
    assert not prior["heads"].contains({"num": 4, "size": 33})
    dropout = [prior["dropout"].sample(rng) for _ in range(2000)]
    assert np.mean([d["rate"] > 0 for d in dropout]) == pytest.approx(0.7, abs=0.04)
    assert all((d["rate"] > 0) == (d["attention_rate"] > 0) for d in dropout)
    assert prior["dropout"].contains({"rate": 0.0, "attention_rate": 0.0})
    assert not prior["dropout"].contains({"rate": 0.5, "attention_rate": 0.0})


def test_a_patch_larger_than_the_image_is_refused() -> None:
    with pytest.raises(
        ValidationError, match="a patch must fit the image, got patch_size=12 and image_size=8"
    ):
        _config(patch_size=12)
    assert _config(patch_size=5).num_patches == 1
