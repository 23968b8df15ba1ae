"""Recurrent language models against float64, token by token: four cells, sizes, start, and nothing read ahead."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from lopt.config import derive
from lopt.types import TaskState
from task_generator.datasets.text import TokenBatch
from task_generator.families.language import MAX_BATCH_LOGITS, LanguageConfig, token_cross_entropy
from task_generator.families.rnn_lm import RnnLmConfig

SMALL = RnnLmConfig(
    cell="gru", hidden_size=5, embed_size=3, sequence_length=7, batch_size=2, dataset="english_bytes"
)
CELLS = ("vanilla", "lstm", "gru", "irnn")
Tree = dict[str, Any]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _reference(cell: str, layer: Tree, x: np.ndarray) -> list[np.ndarray]:
    """Returns the states of one sequence [length, embed], token by token, in float64."""
    h, c = layer["state"], layer.get("cell_state")
    n, states = len(h), []
    for token in x:
        if cell in ("vanilla", "irnn"):
            total = (
                layer["kernel"].T @ token + layer["bias"] + layer["recurrent"].T @ h + layer["recurrent_bias"]
            )
            h = np.tanh(total) if cell == "vanilla" else np.maximum(total, 0)
        elif cell == "lstm":
            gates = layer["kernel"].T @ np.concatenate([token, h]) + layer["bias"]
            i, g, f, o = (gates[k * n : (k + 1) * n] for k in range(4))
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            w, u, b = ([m[..., k * n : (k + 1) * n] for k in range(3)] for m in _gru(layer))
            z = sigmoid(w[0].T @ token + u[0].T @ h + b[0])
            r = sigmoid(w[1].T @ token + u[1].T @ h + b[1])
            h = (1 - z) * h + z * np.tanh(w[2].T @ token + u[2].T @ (r * h) + b[2])
        states.append(h)
    return states


def _gru(layer: Tree) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return layer["kernel"], layer["recurrent"], layer["bias"]


def _random_params(config: LanguageConfig, scale: float = 0.5) -> Tree:
    """Returns parameters of which none is zero: offsets and initial states count, too."""
    task = config.build().task(config.sample_dynamic(jax.random.key(0)))
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(task.init, jax.random.key(0)).params
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, scale, leaf.shape), jnp.float32), shapes)


def _start(config: LanguageConfig) -> Tree:
    task = config.build().task(config.sample_dynamic(jax.random.key(0)))
    return jax.jit(task.init)(jax.random.key(0)).params


def _logits(config: RnnLmConfig, params: Tree, tokens: jax.Array) -> jax.Array:
    return jax.jit(lambda params, tokens: config.network().apply({"params": params}, tokens, jnp.tanh))(
        params, tokens
    )


@pytest.mark.parametrize("cell", CELLS)
def test_cells_agree_with_a_loop_over_tokens(cell: str) -> None:
    config = derive(SMALL, cell=cell)
    params = _random_params(config)
    tokens = jax.random.randint(jax.random.key(1), (2, 7), 0, 259)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    expected = [
        [
            exact["output"]["kernel"].T @ h + exact["output"]["bias"]
            for h in _reference(cell, exact[cell], exact["embedding"]["table"][row])
        ]
        for row in np.asarray(tokens)
    ]
    np.testing.assert_allclose(_logits(config, params, tokens), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_a_token_changes_its_own_logits_and_later_ones_only(cell: str) -> None:
    config = derive(SMALL, cell=cell)
    params = _random_params(config)
    tokens = jnp.full((1, 7), 70)
    change = _logits(config, params, tokens.at[0, 3].set(80)) - _logits(config, params, tokens)
    changed = np.abs(np.asarray(change)).max(axis=-1)[0] > 0
    assert changed.tolist() == [False] * 3 + [True] * 4


def test_the_four_cells_are_four() -> None:
    counts = {cell: derive(SMALL, cell=cell).approximate_cost()["num_params"] for cell in CELLS}
    assert len({counts["vanilla"], counts["gru"], counts["lstm"]}) == 3
    params = _random_params(derive(SMALL, cell="vanilla"))
    tokens = jnp.arange(7)[None, :] + 70
    vanilla = _logits(derive(SMALL, cell="vanilla"), params, tokens)
    irnn = _logits(derive(SMALL, cell="irnn"), {**params, "irnn": params["vanilla"]}, tokens)
    assert np.abs(np.asarray(vanilla - irnn)).max() > 0.1


# hidden, embedding, vocabulary, cell → parameters, from the release's sizes: e.g. LSTM 128 with embeddings of 64 on
# bytes has 259·64 + (64 + 128)·512 + 512 + 2·128 + 128·259 + 259 = 149 059.
@pytest.mark.parametrize(
    ("cell", "hidden", "embed", "text", "expected"),
    [
        ("lstm", 128, 64, "lm1b_bytes", 149_059),
        ("gru", 128, 64, "lm1b_bytes", 16_576 + 192 * 384 + 384 + 128 + 33_411),
        ("irnn", 128, 64, "lm1b_bytes", 16_576 + 192 * 128 + 3 * 128 + 33_411),
        ("vanilla", 128, 64, "lm1b_bytes", 16_576 + 192 * 128 + 3 * 128 + 33_411),
        ("gru", 256, 128, "wikipedia_en_bytes", 259 * 128 + 384 * 768 + 768 + 256 + 257 * 259),
    ],
)
def test_sizes_of_the_evaluation_tasks(cell: str, hidden: int, embed: int, text: str, expected: int) -> None:
    config = RnnLmConfig.model_validate(
        {"cell": cell, "hidden_size": hidden, "embed_size": embed, "dataset": text}
        | {"sequence_length": 32, "batch_size": 128}
    )
    assert config.approximate_cost()["num_params"] == expected
    rngs = {"params": jax.random.key(0)}
    shapes = jax.eval_shape(lambda t: config.network().init(rngs, t, jnp.tanh), jnp.zeros((1, 4), jnp.int32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


def test_the_cost_counts_products_of_weights_with_inputs() -> None:
    # Per token: 3 gates of 5 units see 3 + 5 numbers, 259 outputs see 5; 7 tokens, 2 examples, 6 operations each.
    assert SMALL.approximate_cost()["flops_per_step"] == 6 * 2 * 7 * (3 * 5 * 8 + 5 * 259)


def test_a_zero_initial_state_is_no_parameter() -> None:
    config = derive(SMALL, initial_state="zero")
    assert "state" not in _random_params(config)["gru"]
    assert config.approximate_cost()["num_params"] == SMALL.approximate_cost()["num_params"] - 5


@pytest.mark.parametrize("cell", CELLS)
def test_the_loss_starts_near_the_logarithm_of_the_vocabulary(cell: str) -> None:
    task = (
        derive(RnnLmConfig.example(), cell=cell, initializer="normal", init_scale=1.0)
        .build()
        .task(SMALL.sample_dynamic(jax.random.key(0)))
    )
    state, batch = jax.jit(task.init)(jax.random.key(0)), task.batch(jax.random.key(2))
    loss = jax.jit(task.loss)(state, jax.random.key(1), batch)[0]
    assert float(loss) == pytest.approx(math.log(259), abs=0.2)
    assert float(task.normalize(loss)) == pytest.approx(float(loss) / math.log(259), rel=1e-6)


def test_one_initialiser_fills_every_matrix() -> None:
    config = derive(SMALL, initializer="orthogonal", init_scale=2.0)
    params = _start(config)
    matrices = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    assert len(matrices) == 4
    for matrix in matrices:
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        np.testing.assert_allclose(tall.T @ tall, 4 * np.eye(tall.shape[1]), atol=1e-5)
    assert all(not leaf.any() for leaf in jax.tree.leaves(params) if leaf.ndim == 1)


def test_irnn_starts_as_the_identity_and_library_embeddings_with_variance_one() -> None:
    config = derive(SMALL, cell="irnn", initializer="truncated_normal", init_scale=1.0, embed_size=64)
    params = _start(config)
    np.testing.assert_array_equal(params["irnn"]["recurrent"], np.eye(5))
    assert float(jnp.abs(params["embedding"]["table"]).max()) == pytest.approx(2.0, abs=0.01)
    assert float(params["embedding"]["table"].std()) == pytest.approx(0.8796, abs=0.02)


def test_cross_entropy_is_that_of_the_softmax_and_padding_does_not_count() -> None:
    logits = jax.random.normal(jax.random.key(0), (2, 3, 6)) * 3
    targets = jnp.array([[1, 5, 0], [0, 2, 3]])
    exact = np.asarray(logits, np.float64)
    log_probabilities = exact - np.log(np.exp(exact).sum(axis=-1, keepdims=True))
    counted = [(0, 0), (0, 1), (1, 1), (1, 2)]
    expected = -np.mean([log_probabilities[i, j, int(targets[i, j])] for i, j in counted])
    loss_and_gradient = jax.jit(jax.value_and_grad(token_cross_entropy))
    loss, gradient = loss_and_gradient(logits, targets)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert not gradient[0, 2].any()
    assert gradient[0, 1].any()
    assert float(loss_and_gradient(logits, jnp.zeros_like(targets))[0]) == 0.0


def test_equal_logits_have_a_normalised_loss_of_one() -> None:
    task = SMALL.build().task(SMALL.sample_dynamic(jax.random.key(0)))
    zeros = jax.tree.map(jnp.zeros_like, _random_params(SMALL))
    batch: TokenBatch = task.batch(jax.random.key(0))
    loss = jax.jit(task.loss)(TaskState(zeros), jax.random.key(0), batch)[0]
    assert float(task.normalize(loss)) == pytest.approx(1.0, abs=1e-6)


def test_bytes_keep_their_vocabulary_and_sub_words_are_truncated() -> None:
    fields = SMALL.model_dump()
    assert RnnLmConfig.model_validate(fields | {"vocab_size": 150}) == SMALL
    cut = RnnLmConfig.model_validate(fields | {"dataset": "lm1b_32k", "vocab_size": 150})
    assert cut.network().vocab_size == 150
    whole = RnnLmConfig.model_validate(fields | {"dataset": "lm1b_32k"})
    assert RnnLmConfig.model_validate(fields | {"dataset": "lm1b_32k", "vocab_size": 10**6}) == whole
    prior = RnnLmConfig.prior()["vocab_size"]
    assert all(prior.contains(config.vocab_size) for config in (SMALL, cut, whole))
    assert [c.overrides_could_be_sampled() for c in (SMALL, cut, whole)] == [True, True, False]


def test_what_no_prior_draws_is_seen() -> None:
    for change in ({"initial_state": "zero"}, {"cell": "vanilla", "activation": "relu"}):
        assert not derive(SMALL, **change).overrides_could_be_sampled()
    assert not RnnLmConfig.prior()["cell"].contains("irnn")


def test_impossible_sizes_are_refused_with_the_numbers() -> None:
    with pytest.raises(
        ValidationError, match=r"batch_size=512, sequence_length=4096 and a vocabulary of 259"
    ):
        derive(SMALL, batch_size=512, sequence_length=4096)
    assert MAX_BATCH_LOGITS > 512 * 2001 * 259
    derive(SMALL, batch_size=512, sequence_length=2001)
    with pytest.raises(ValidationError, match="activation='relu' with cell='gru'"):
        derive(SMALL, activation="relu")
