"""The Transformer against float64, position by position: dropout, sizes, start, and nothing read ahead."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import softmax

from lopt.config import derive
from task_generator.families.transformer_lm import TransformerLmConfig

SMALL = TransformerLmConfig(
    head_size=3,
    num_heads=2,
    num_layers=2,
    sequence_length=5,
    batch_size=2,
    dataset="english_bytes",
    dropout_rate=0.0,
)
Tree = dict[str, Any]


def _random_params(config: TransformerLmConfig) -> Tree:
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(
        config.build().task(config.sample_dynamic(jax.random.key(0))).init, jax.random.key(0)
    )
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32), shapes.params)


def _start(config: TransformerLmConfig) -> Tree:
    task = config.build().task(config.sample_dynamic(jax.random.key(0)))
    return jax.jit(task.init)(jax.random.key(0)).params


def _logits(config: TransformerLmConfig, params: Tree, tokens: jax.Array) -> jax.Array:
    return jax.jit(lambda params, tokens: config.network().apply({"params": params}, tokens, jax.nn.gelu))(
        params, tokens
    )


def _dense(layer: Tree, x: np.ndarray) -> np.ndarray:
    return x @ layer["kernel"] + layer["bias"]


def _norm(layer: Tree, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * layer["scale"] + layer["bias"]
    )


def _attend(layer: Tree, x: np.ndarray, num_heads: int) -> np.ndarray:
    """Returns the attention of one sequence [length, features]: position by position, head by head."""
    query, key, value = (
        np.split(_dense(layer[name], x), num_heads, axis=-1) for name in ("query", "key", "value")
    )
    rows = []
    for t in range(len(x)):
        heads = []
        for q, k, v in zip(query, key, value, strict=True):
            weights = softmax(k[: t + 1] @ q[t] / math.sqrt(q.shape[-1]))
            heads.append(weights @ v[: t + 1])
        rows.append(np.concatenate(heads))
    return _dense(layer["output"], np.stack(rows))


def _reference(params: Tree, tokens: np.ndarray, num_heads: int) -> np.ndarray:
    """Returns the logits of one sequence, in float64."""
    x = params["embedding"]["table"][tokens]
    if "positions" in params:
        x = x + params["positions"]
    for i in range(2):
        block = params[f"block_{i}"]
        x = x + _attend(block["attention"], _norm(block["attention_norm"], x), num_heads)
        y = _dense(block["mlp_in"], _norm(block["mlp_norm"], x))
        y = 0.5 * y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))  # GELU, tanh form
        x = x + _dense(block["mlp_out"], y)
    return _dense(params["output"], _norm(params["output_norm"], x))


@pytest.mark.parametrize(("key_size", "positions"), [(None, "none"), (4, "learned")])
def test_logits_agree_with_a_loop_over_positions(key_size: int | None, positions: str) -> None:
    config = derive(SMALL, key_size=key_size, positions=positions)
    params = _random_params(config)
    assert params["block_1"]["attention"]["query"]["kernel"].shape == (6, 2 * (key_size or 3))
    assert params["block_1"]["mlp_in"]["kernel"].shape == (6, 24)
    tokens = jax.random.randint(jax.random.key(1), (2, 5), 0, 259)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    expected = [_reference(exact, row, 2) for row in np.asarray(tokens)]
    np.testing.assert_allclose(_logits(config, params, tokens), expected, rtol=5e-5, atol=5e-5)


def test_a_token_changes_its_own_logits_and_later_ones_only() -> None:
    params, tokens = _random_params(SMALL), jnp.arange(5)[None, :] + 70
    change = _logits(SMALL, params, tokens.at[0, 2].set(90)) - _logits(SMALL, params, tokens)
    changed = np.abs(np.asarray(change)).max(axis=-1)[0] > 0
    assert changed.tolist() == [False, False, True, True, True]


def test_dropout_drops_and_scales_up_what_blocks_add() -> None:
    config = derive(SMALL, dropout_rate=0.25, num_layers=1)
    params = _random_params(config)
    block = params["block_0"]
    # Attention adds 0.3, the MLP nothing, and the output shows what went in: 0, or 0.3 / (1 − 0.25).
    zero = jax.tree.map(jnp.zeros_like, block)
    zero["attention"]["output"]["bias"] = jnp.full((6,), 0.3)
    params = {**params, "block_0": zero, "embedding": {"table": jnp.zeros((259, 6))}}

    @jax.jit
    def added(key: jax.Array) -> jax.Array:
        seen = config.network().apply(
            {"params": params},
            jnp.full((16, 5), 7),
            jax.nn.gelu,
            rngs={"dropout": key},
            capture_intermediates=lambda module, _: module.name == "block_0",
            mutable=["intermediates"],
        )[1]
        return seen["intermediates"]["block_0"]["__call__"][0]

    first, second = added(jax.random.key(0)), added(jax.random.key(1))
    np.testing.assert_allclose(np.unique(np.asarray(first)), [0.0, 0.4], atol=1e-6)
    assert not np.array_equal(first, second)
    kept = float(jnp.mean(jnp.concatenate([first, second]) > 0))
    assert kept == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 960))


# Per block 4 projections of d × 32·heads with their offsets, an MLP of d → 4d → d, two norms; then a norm, the
# embedding and the output.
@pytest.mark.parametrize(
    ("num_heads", "width", "num_layers"), [(5, 20, 1), (7, 112, 3), (19, 304, 2), (8, 32, 5), (8, 512, 5)]
)
def test_sizes_of_the_evaluation_tasks(num_heads: int, width: int, num_layers: int) -> None:
    config = TransformerLmConfig(
        head_size=width // num_heads,
        num_heads=num_heads,
        num_layers=num_layers,
        key_size=32,
        sequence_length=8,
        batch_size=4,
        dataset="lm1b_32k",
    )
    inner, vocab = 32 * num_heads, config.num_tokens
    attention = 3 * (width * inner + inner) + inner * width + width
    mlp = width * 4 * width + 4 * width + 4 * width * width + width
    expected = num_layers * (attention + mlp + 4 * width) + 2 * width + vocab * width + width * vocab + vocab
    assert config.model_size == width
    assert config.approximate_cost()["num_params"] == expected
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    shapes = jax.eval_shape(
        lambda t: config.network().init(rngs, t, jax.nn.gelu), jnp.zeros((1, 8), jnp.int32)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


def test_the_cost_counts_products() -> None:
    # Per token and block: 4·6·6 to project, 2·4·6·6 in the MLP, 2·5·6 to weigh and sum 5 values; then 6·259.
    assert SMALL.approximate_cost()["flops_per_step"] == 6 * 2 * 5 * (2 * (144 + 288 + 60) + 6 * 259)


def test_the_loss_starts_near_the_logarithm_of_the_vocabulary() -> None:
    config = derive(TransformerLmConfig.example(), head_size=16, batch_size=64)
    task = config.build().task(config.sample_dynamic(jax.random.key(0)))
    state, batch = jax.jit(task.init)(jax.random.key(0)), task.batch(jax.random.key(2))
    loss = jax.jit(task.loss)(state, jax.random.key(1), batch)[0]
    # Logits are normal with the variance of the output kernel's normal numbers cut at ±2; their mean exp, ½ of it.
    assert float(loss) == pytest.approx(math.log(259) + 0.7737 / 2, abs=0.15)


def test_matrices_start_with_the_release_s_deviations() -> None:
    config = derive(SMALL, head_size=32, num_layers=4, positions="learned", sequence_length=64)
    params = _start(config)
    deviation = lambda leaf: float(jnp.std(leaf))
    block = params["block_3"]
    assert deviation(block["attention"]["value"]["kernel"]) == pytest.approx(math.sqrt(2 / 4 / 64), rel=0.05)
    assert deviation(block["mlp_out"]["kernel"]) == pytest.approx(math.sqrt(2 / 4 / 256), rel=0.05)
    assert deviation(params["embedding"]["table"]) == pytest.approx(0.8796, rel=0.05)
    assert deviation(params["output"]["kernel"]) == pytest.approx(0.8796 / 8, rel=0.05)
    assert deviation(params["positions"]) == pytest.approx(0.02, rel=0.05)
    assert all((block[name]["scale"] == 1).all() for name in ("attention_norm", "mlp_norm"))


def test_impossible_sizes_are_refused_with_the_numbers() -> None:
    with pytest.raises(ValidationError, match=r"attention weights.*num_heads=128 and sequence_length=512"):
        derive(SMALL, num_heads=128, sequence_length=512, batch_size=64)
    with pytest.raises(ValidationError, match=r"parameters.*head_size=128, num_heads=128 and num_layers=8"):
        derive(SMALL, head_size=128, num_heads=128, num_layers=8)


def test_what_no_prior_draws_is_seen() -> None:
    sampled = derive(SMALL, dropout_rate=0.1)
    assert sampled.overrides_could_be_sampled()
    for change in ({"dropout_rate": 0.0}, {"key_size": 32}, {"positions": "learned"}, {"activation": "relu"}):
        assert not derive(sampled, **change).overrides_could_be_sampled()
    for change in ({"initializer": "normal"}, {"init_scale": 2.0}):
        assert not derive(sampled, **change).overrides_could_be_sampled()
