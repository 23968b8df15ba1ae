"""Windows of text: of their own split, everywhere equally often, targets one token later; documents read back."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.types import SPLITS
from task_generator.datasets import english, text
from task_generator.datasets.byte_tokens import END_OF_DOCUMENT, FIRST_BYTE
from task_generator.datasets.source import TextSource
from task_generator.datasets.text import TextDataset, load_text, truncate_vocabulary

SIZES = {"train": 40, "inner_valid": 9, "outer_valid": 13, "test": 17}


@pytest.fixture
def numbered() -> TextDataset:
    """Every token of every split is different, and counts on within its split."""
    starts = {split: 100 * i for i, split in enumerate(SPLITS)}
    streams = {split: jnp.arange(SIZES[split], dtype=jnp.uint16) + starts[split] for split in SPLITS}
    return TextDataset(**streams, vocab_size=400)


@pytest.mark.parametrize("split", SPLITS)
def test_windows_come_from_all_of_their_split_and_from_no_other(numbered: TextDataset, split: str) -> None:
    inputs, targets = numbered.batch(jax.random.key(0), split, 600, 8)  # type: ignore[arg-type]
    stream = np.asarray(getattr(numbered, split))
    assert inputs.shape == targets.shape == (600, 8)
    assert inputs.dtype == targets.dtype == jnp.int32
    windows = {tuple(row) for row in np.concatenate([inputs, targets[:, -1:]], axis=1).tolist()}
    assert windows == {tuple(stream[i : i + 9].tolist()) for i in range(len(stream) - 8)}


def test_targets_are_the_inputs_one_token_later(numbered: TextDataset) -> None:
    inputs, targets = numbered.batch(jax.random.key(0), "train", 20, 5)
    np.testing.assert_array_equal(targets[:, :-1], inputs[:, 1:])
    np.testing.assert_array_equal(targets, inputs + 1)  # this text counts


def test_windows_start_everywhere_equally_often(numbered: TextDataset) -> None:
    count, draws = 40 - 7, 33_000
    starts = np.asarray(numbered.batch(jax.random.key(1), "train", draws, 7).inputs[:, 0])
    observed = np.bincount(starts, minlength=count)
    expected = draws / count
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    assert len(observed) == count
    assert chi_square < 32 + 4 * np.sqrt(2 * 32)  # mean and four deviations of 32 degrees of freedom


def test_the_same_key_gives_the_same_batch(numbered: TextDataset) -> None:
    first, again = (numbered.batch(jax.random.key(3), "train", 16, 6) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = numbered.batch(jax.random.key(4), "train", 16, 6)
    assert not np.array_equal(first.inputs, other.inputs)


@pytest.mark.parametrize("vocab_size", [3, 100, 255, 258])
def test_truncation_maps_every_id_below_the_vocabulary_and_none_to_padding(vocab_size: int) -> None:
    ids = np.arange(1, 8192)
    folded = np.asarray(truncate_vocabulary(jnp.asarray(ids), vocab_size))
    np.testing.assert_array_equal(folded[: vocab_size - 1], ids[: vocab_size - 1])
    assert folded.max() == vocab_size - 1
    assert folded.min() == 1
    assert set(folded[vocab_size:]) == set(range(1, vocab_size))  # all are used
    assert int(truncate_vocabulary(jnp.asarray(0), vocab_size)) == 0


def test_a_batch_is_truncated_before_it_is_cut_into_inputs_and_targets(numbered: TextDataset) -> None:
    whole = numbered.batch(jax.random.key(0), "test", 8, 6)
    cut = numbered.batch(jax.random.key(0), "test", 8, 6, vocab_size=50)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(truncate_vocabulary(a, 50), b), whole, cut)
    kept = numbered.batch(jax.random.key(0), "test", 8, 6, vocab_size=400)
    jax.tree.map(np.testing.assert_array_equal, whole, kept)


@pytest.fixture
def registered() -> Iterator[str]:
    streams = {split: np.arange(1, 1 + SIZES[split]) for split in SPLITS}
    text.TEXTS["counting"] = TextSource(vocab_size=50, num_tokens=79, load=lambda: streams)
    yield "counting"
    del text.TEXTS["counting"]


def test_a_split_shorter_than_a_window_is_refused(registered: str) -> None:
    assert load_text(registered, 8).vocab_size == 50  # a window and its last target: 9 tokens
    with pytest.raises(ValueError, match=r"window of 9 tokens.*'counting'.*got 9 tokens in 'inner_valid'"):
        load_text(registered, 9)


def test_tasks_of_different_lengths_share_one_copy() -> None:
    assert load_text("english_bytes", 8) is load_text("english_bytes", 32)


def test_every_document_is_cut_into_parts_that_join_to_the_whole() -> None:
    parts = english.split_documents()
    assert all(len(parts[split]) == len(english.documents()) for split in SPLITS)
    for i, (_, document) in enumerate(english.documents()):
        assert "".join(parts[split][i] for split in SPLITS) == document


def test_english_bytes_read_back_as_the_documents() -> None:
    data = load_text("english_bytes")
    for split in SPLITS:
        tokens = np.asarray(getattr(data, split))
        assert set(tokens[tokens < FIRST_BYTE]) == {END_OF_DOCUMENT}
        assert tokens.max() < data.vocab_size
        documents = np.split(tokens, np.flatnonzero(tokens == END_OF_DOCUMENT) + 1)
        texts = [(tokens[:-1] - FIRST_BYTE).astype(np.uint8).tobytes().decode() for tokens in documents[:-1]]
        assert tuple(texts) == english.split_documents()[split]
        assert documents[-1].size == 0  # the stream ends with a document
