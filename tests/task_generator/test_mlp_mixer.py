"""MLP-Mixers against a float64 forward pass written independently, their start, and their sizes."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from lopt.config import derive
from task_generator.families.mlp_mixer import MlpMixerConfig
from task_generator.families.network import variable_shapes
from task_generator.networks.mlp_mixer import MlpMixer


def test_the_network_is_what_its_formula_says() -> None:
    rng = np.random.default_rng(0)
    network = MlpMixer(2, 5, 1, 6, 7, 3)
    images = rng.uniform(size=(2, 4, 4, 3))
    shapes, _ = variable_shapes(network, jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32))
    p = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) * 0.5, shapes)
    affine = lambda x, q: x @ q["kernel"] + q["bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        q = p[name] if name in p else p["block_0"][name]
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * q["scale"] + q[
            "bias"
        ]

    expected, block = [], p["block_0"]
    for image in images:
        corners = [image[i : i + 2, j : j + 2] for i in (0, 2) for j in (0, 2)]
        x = np.stack([np.einsum("hwc,hwcf->f", patch, p["stem"]["kernel"]) for patch in corners])
        x = x + p["stem"]["bias"]
        x = x + affine(np.tanh(affine(norm(x, "token_norm").T, block["token_in"])), block["token_out"]).T
        x = x + affine(np.tanh(affine(norm(x, "channel_norm"), block["channel_in"])), block["channel_out"])
        expected.append(affine(norm(x, "head_norm").mean(0), p["head"]))
    single = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), p)
    apply = jax.jit(lambda params, x: network.apply({"params": params}, x, jnp.tanh))
    out = apply(single, np.asarray(images, np.float32))
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_the_loss_starts_at_chance() -> None:
    task = MlpMixerConfig.example().build().task(None)
    key = jax.random.key(0)
    loss, _ = jax.jit(lambda k: task.loss(task.init(k), k, task.batch(k)))(key)
    assert float(loss) == pytest.approx(math.log(10), rel=1e-6)


def test_parameter_count_of_an_evaluation_size() -> None:
    # MLPMixer_ImageNet64_tiny16, by hand: stem 768·512 + 512; a block: tokens 16·384 twice with 384 + 16 biases,
    # channels 512·2048 twice with 2048 + 512 biases, norms 4·512; a norm 2·512; the head 512·1000 + 1000.
    sizes = {"hidden_dim": 512, "num_blocks": 5, "tokens_mlp_dim": 384, "channels_mlp_dim": 2048}
    config = derive(MlpMixerConfig.example(), **sizes, patch_size=16, image_size=64, dataset="imagenet64")
    block = 2 * 16 * 384 + 400 + 2 * 512 * 2048 + 2560 + 2048
    assert config.approximate_cost()["num_params"] == 393_728 + 5 * block + 1024 + 513_000


def test_a_patch_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValidationError, match="a patch must fit the image"):
        derive(MlpMixerConfig.example(), patch_size=16)
