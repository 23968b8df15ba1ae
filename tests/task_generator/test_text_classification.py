"""Telling documents apart: windows are from the document and split they claim, uniform; and it can be learned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lopt.config import derive
from lopt.inner_loop import train_curve
from lopt.types import SPLITS, Split
from task_generator import TaskConfig
from task_generator.datasets.byte_tokens import encode_bytes
from task_generator.datasets.english import documents
from task_generator.datasets.english_subwords import english_vocabulary
from task_generator.datasets.labelled_text import (
    LABELLED_TEXTS,
    LabelledSplit,
    LabelledTextDataset,
    block_bounds,
    load_labelled_text,
    longest_documents,
)
from task_generator.families.text_classification import TextClassificationConfig
from task_generator.networks.sequence_labels import SequenceClassifier

EXAMPLE = TextClassificationConfig.example()


def test_classes_are_the_longest_documents() -> None:
    sizes = [len(text) for _, text in documents()]
    chosen = longest_documents(5)
    assert [sizes[i] for i in chosen] == sorted(sizes, reverse=True)[:5]
    assert longest_documents(3) == chosen[:3]  # fewer classes are the same ones
    with pytest.raises(ValueError, match="num_classes=1000"):
        longest_documents(1000)


@pytest.mark.parametrize(("length", "num_stretches"), [(1000, 1), (1234, 7), (99, 5)])
def test_blocks_share_nothing_and_leave_out_nothing(length: int, num_stretches: int) -> None:
    bounds = block_bounds(length, num_stretches)
    assert bounds.shape == (num_stretches, len(SPLITS), 2)
    covered = [i for start, stop in bounds.reshape(-1, 2) for i in range(start, stop)]
    assert covered == list(range(length))
    shares = (bounds[..., 1] - bounds[..., 0]).sum(axis=0) / length
    np.testing.assert_allclose(shares, [0.76, 0.08, 0.08, 0.08], atol=num_stretches / length)


@pytest.mark.parametrize("split", SPLITS)
def test_windows_are_from_the_document_and_the_split_that_they_claim(split: Split) -> None:
    length, chosen = 40, longest_documents(6)
    data = load_labelled_text("english_bytes", 6, length)
    tokens, labels = (np.asarray(x) for x in data.batch(jax.random.key(0), split, 64, length))
    assert set(labels.tolist()) == set(range(6))
    num_stretches = data.train.starts.shape[1]
    assert num_stretches > 1
    for window, label in zip(tokens, labels, strict=True):
        document = encode_bytes(documents()[chosen[label]][1])[:-1]
        bounds = block_bounds(len(document), num_stretches)[:, SPLITS.index(split)]
        blocks = [document[start:stop].tobytes() for start, stop in bounds]
        assert any(window.astype(np.uint16).tobytes() in block for block in blocks)


def test_subword_windows_decode_to_their_document() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_str(english_vocabulary())
    chosen = longest_documents(3)
    tokens, labels = load_labelled_text("english_subwords", 3, 20).batch(jax.random.key(0), "test", 16, 20)
    for window, label in zip(np.asarray(tokens), np.asarray(labels), strict=True):
        # A character of several bytes may be cut at either end.
        assert tokenizer.decode(window.tolist()).strip("\ufffd") in documents()[chosen[label]][1]


def test_documents_blocks_and_places_are_drawn_uniformly() -> None:
    count = 8192
    tokens = jnp.arange(100, dtype=jnp.uint16)  # says where it is
    starts = jnp.array([[0, 20], [50, 70]], jnp.int32)
    part = LabelledSplit(tokens, starts, jnp.full((2, 2), 12, jnp.int32))
    data = LabelledTextDataset(part, part, part, part)
    windows, labels = (np.asarray(x) for x in data.batch(jax.random.key(0), "test", count, 10))
    np.testing.assert_array_equal(np.diff(windows, axis=1), 1)
    np.testing.assert_array_equal(windows[:, 0] >= 50, labels == 1)
    shares = np.bincount(windows[:, 0], minlength=100) / count
    possible = [start + offset for start in (0, 20, 50, 70) for offset in range(3)]  # the last fits exactly
    error = 5 * np.sqrt(1 / 12 * 11 / 12 / count)
    np.testing.assert_allclose(shares[possible], 1 / 12, atol=error)
    assert shares[possible].sum() == pytest.approx(1.0)


def test_the_prior_s_longest_windows_fit_its_shortest_document() -> None:
    for name in LABELLED_TEXTS:
        config = derive(EXAMPLE, dataset=name, num_classes=16, sequence_length=64)
        data = config.load_data()
        assert all(int(getattr(data, split).lengths.min()) >= 64 for split in SPLITS)
        assert data.test.lengths.shape[0] == 16
    with pytest.raises(ValueError, match="a window of 4000 tokens must fit into every split of a document"):
        derive(EXAMPLE, sequence_length=4000).build()


def test_the_last_state_reads_all_and_the_mean_averages() -> None:
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(3, 9, size=(2, 5)), jnp.int32)
    params = {
        "embedding": {"table": jnp.asarray(rng.normal(size=(9, 3)), jnp.float32)},
        "vanilla": {
            "kernel": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32),
            "recurrent": jnp.asarray(0.5 * rng.normal(size=(4, 4)), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=4), jnp.float32),
            "recurrent_bias": jnp.asarray(rng.normal(size=4), jnp.float32),
        },
        "output": {
            "kernel": jnp.asarray(rng.normal(size=(4, 2)), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=2), jnp.float32),
        },
    }
    cell = {name: np.asarray(leaf, np.float64) for name, leaf in params["vanilla"].items()}
    state, states = np.zeros((2, 4)), []
    for t in range(5):
        x = np.asarray(params["embedding"]["table"], np.float64)[np.asarray(tokens[:, t])]
        offset = cell["bias"] + cell["recurrent_bias"]
        state = np.tanh(x @ cell["kernel"] + state @ cell["recurrent"] + offset)
        states.append(state)
    for pooling, pooled in (("last", states[-1]), ("mean", np.mean(states, axis=0))):
        network = SequenceClassifier("vanilla", 4, 3, 9, 2, pooling)
        expected = pooled @ np.asarray(params["output"]["kernel"]) + np.asarray(params["output"]["bias"])
        np.testing.assert_allclose(network.apply({"params": params}, tokens, jnp.tanh), expected, atol=1e-5)


def test_equal_logits_have_a_normalised_loss_of_one() -> None:
    batch = EXAMPLE.draw(EXAMPLE.load_data(), jax.random.key(0), "train")
    loss = EXAMPLE.loss(jnp.zeros((EXAMPLE.batch_size, 4)), batch, None)
    assert float(EXAMPLE.normalize(loss, None, None)) == pytest.approx(1.0, abs=1e-6)


def test_documents_can_be_told_apart_on_text_that_was_not_trained_on() -> None:
    config = derive(EXAMPLE, hidden_size=32, batch_size=32, initializer="orthogonal", init_scale=1.0)
    task = TaskConfig(family=config).build().task(config.sample_dynamic(jax.random.key(0)))
    run = lambda key: train_curve(
        task, optax.adam(1e-2), key, eval_every=400, num_points=2, splits=("test",), num_eval_batches=16
    )
    with jax.numpy_dtype_promotion("standard"):  # Adam's bias correction relies on it
        curve = jax.jit(run)(jax.random.key(1)).losses["test"]
    start, end = (float(task.normalize(loss)) for loss in curve)
    assert start > 0.9
    assert end < 0.8
