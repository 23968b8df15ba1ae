"""Sub-words: any text comes back, the vocabulary is the training split's alone, and tokens are made once."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
import pytest

from lopt.types import SPLITS
from task_generator.datasets import english_subwords
from task_generator.datasets.byte_tokens import END_OF_DOCUMENT, decode_bytes, documents_of, encode_bytes
from task_generator.datasets.english import split_documents
from task_generator.datasets.english_subwords import VOCAB_SIZE, cache_key, english_vocabulary, make_tokens
from task_generator.datasets.prepared import TokenArrays, use_reader
from task_generator.datasets.subwords import (
    SMALLEST,
    decode_subwords,
    encode_subwords,
    read_vocabulary,
    train_vocabulary,
)
from task_generator.datasets.text import EMBEDDED_TEXTS, load_text

TEXTS = ["low lower lowest", "new newer newest", "größer, 大きい", "the <eos> of the <pad>"]


class CountingReader:
    """Keeps tokens in memory and counts what it is asked for."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], TokenArrays] = {}
        self.num_made = 0

    def read_images(self, name: str, image_size: int) -> None:
        return None

    def read_tokens(self, name: str) -> None:
        return None

    def count(self, name: str) -> None:
        return None

    def cached(self, name: str, key: str, make: Callable[[], TokenArrays]) -> TokenArrays:
        if (name, key) not in self.kept:
            self.num_made += 1
            self.kept[name, key] = make()
        return self.kept[name, key]


def test_the_most_frequent_pair_is_merged_first_and_ties_go_to_the_lower_ids() -> None:
    # "aa" occurs 9 times, "ab" 3 times; with "aa" merged so does "aa aa", but the ids of bytes are lower.
    vocabulary = read_vocabulary(train_vocabulary(["aaaa"] * 3 + ["ab"] * 3, SMALLEST + 2))
    assert [vocabulary.id_to_token(SMALLEST + i) for i in range(2)] == ["aa", "ab"]
    assert vocabulary.encode("aaab").ids == [SMALLEST, SMALLEST + 1]


def test_special_ids_are_reserved() -> None:
    vocabulary = read_vocabulary(train_vocabulary(TEXTS, 300))
    assert [vocabulary.id_to_token(i) for i in range(3)] == ["<pad>", "<eos>", "<unk>"]
    [ids] = encode_subwords(train_vocabulary(TEXTS, 300), ["the <eos> of <pad> <unk>"])
    assert ids[-1] == END_OF_DOCUMENT
    assert ids[:-1].min() > 2  # what a text spells out is text


@pytest.mark.parametrize(
    "text", ["", "plain", "größer 大きい 🚴", "tabs\tand\n\nlines ", "the <eos> of\x00it"]
)
def test_decoding_gives_any_text_back(text: str) -> None:
    vocabulary = train_vocabulary(TEXTS, 300)
    [ids] = encode_subwords(vocabulary, [text])
    assert decode_subwords(vocabulary, ids[:-1]) == text


def test_a_vocabulary_that_cannot_be_is_refused() -> None:
    for size in (SMALLEST - 1, 2**16 + 1):
        with pytest.raises(ValueError, match=rf"from 259 .* to 65536 .*got {size}"):
            train_vocabulary(TEXTS, size)


def test_training_is_the_same_in_another_process_with_one_thread() -> None:
    code = (
        "import hashlib; from task_generator.datasets.english_subwords import english_vocabulary as v\n"
        "print(hashlib.sha256(v().encode()).hexdigest())"
    )
    import hashlib
    import os

    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == hashlib.sha256(english_vocabulary().encode()).hexdigest()


def test_the_vocabulary_is_trained_on_the_training_split_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def spy(documents: tuple[str, ...], vocab_size: int) -> str:
        seen.extend(documents)
        return train_vocabulary(documents, vocab_size)

    monkeypatch.setattr(english_subwords, "train_vocabulary", spy)
    english_vocabulary.cache_clear()
    english_vocabulary()
    assert tuple(seen) == split_documents()["train"]


def test_english_subwords_are_the_same_text_as_english_bytes() -> None:
    tokens = make_tokens()
    for split, texts in split_documents().items():
        assert decode_subwords(english_vocabulary(), tokens[split]) == "\n".join(texts) + "\n"
        assert tokens[split].dtype == np.uint16
        assert tokens[split].min() >= END_OF_DOCUMENT
        assert tokens[split].max() < VOCAB_SIZE
    declared = EMBEDDED_TEXTS["english_subwords"].num_tokens
    assert abs(sum(map(len, tokens.values())) / declared - 1) < 0.1


def test_half_of_the_vocabulary_or_more_occurs_and_shortens_the_text_threefold() -> None:
    tokens = make_tokens()
    assert len(np.unique(tokens["train"])) > VOCAB_SIZE / 2
    num_bytes = sum(len(text.encode()) for text in split_documents()["test"])
    assert num_bytes / len(tokens["test"]) > 3  # on text it was not trained on


def test_batches_of_subwords_fit_any_vocabulary() -> None:
    data = load_text("english_subwords", 64)
    for vocab_size in (100, 1000, VOCAB_SIZE):
        batch = data.batch(jax.random.key(0), "train", 32, 64, vocab_size)
        assert batch.inputs.shape == batch.targets.shape == (32, 64)
        assert 0 < int(batch.inputs.min()) <= int(batch.inputs.max()) < vocab_size
        np.testing.assert_array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def test_tokens_are_made_once_and_kept_by_the_reader() -> None:
    reader = CountingReader()
    load = EMBEDDED_TEXTS["english_subwords"].load
    with use_reader(reader):
        first = load()
        assert load() is first
    assert reader.num_made == 1
    assert list(reader.kept) == [("english_subwords", cache_key())]


def test_the_key_changes_with_the_text_and_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_key()
    monkeypatch.setattr(english_subwords, "trainer_version", lambda: "99")
    other_library = cache_key()
    monkeypatch.undo()
    monkeypatch.setattr(english_subwords, "split_documents", lambda: {split: ("x",) for split in SPLITS})
    assert len({before, other_library, cache_key()}) == 3


def test_a_cold_training_takes_seconds_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("asked for a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    english_vocabulary.cache_clear()
    start = time.perf_counter()
    make_tokens()
    assert time.perf_counter() - start < 20  # 1 s on an idle core


def test_naming_and_sampling_texts_trains_and_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from task_generator.families import FAMILIES

    def refuse(*arguments: object) -> None:
        raise AssertionError("loaded or trained while sampling")

    monkeypatch.setattr(english_subwords, "train_vocabulary", refuse)
    monkeypatch.setattr(english_subwords, "cached_tokens", refuse)
    english_vocabulary.cache_clear()
    config = FAMILIES["transformer_lm"].example().model_copy(update={"dataset": "english_subwords"})
    config = type(config).model_validate(config.model_dump())
    assert config.fingerprint()
    assert config.approximate_cost()
    english_vocabulary.cache_clear()
    with pytest.raises(AssertionError, match="while sampling"):
        english_vocabulary()  # the refusal would have been noticed


@pytest.mark.parametrize("step", [1, 3, 2**22])
def test_documents_come_back_from_a_stream_of_bytes(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr("task_generator.datasets.byte_tokens._STEP", step)
    texts = ["eins", "", "größer", "x" * 7]
    stream = np.concatenate([encode_bytes(text) for text in texts])
    assert list(documents_of(stream)) == texts
    assert list(documents_of(stream[:-3])) == [*texts[:-1], "xxxxx"]
    assert decode_bytes(stream[:5]) == "eins\n"
