"""Preparing texts: how documents are dealt to splits, limits, and sub-words that follow the bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from prepared_datasets import nothing

from storage.datasets import SPLITS, WorkspaceReader
from storage.datasets_preparation import Source, prepare_subwords, prepare_text
from storage.errors import DatasetSourceError
from storage.workspace import Workspace
from task_generator.datasets.byte_tokens import documents_of, encode_bytes
from task_generator.datasets.subwords import encode_subwords, train_vocabulary


def documents(count: int) -> list[str]:
    words = ["keirin", "pacer", "größer", "sprint", "the", "rider"]
    rng = np.random.default_rng(0)
    return [f"{number}: " + " ".join(rng.choice(words, 12)) for number in range(count)]


def read_documents(count: int, with_test: bool) -> dict[str, partial[Iterator[str]]]:
    texts = documents(count)
    found = {"train": partial(iter, texts)}
    return {**found, "test": partial(iter, ["a test", "another"])} if with_test else found


@pytest.mark.parametrize("with_test", [True, False])
def test_documents_are_dealt_to_splits(workspace: Workspace, with_test: bool) -> None:
    read = partial(read_documents, 250, with_test)
    assert prepare_text(workspace, "lm1b_bytes", read, encode_bytes, Source("here"), nothing)
    assert not prepare_text(workspace, "lm1b_bytes", read, encode_bytes, Source("here"), nothing)
    tokens = WorkspaceReader(workspace).read_tokens("lm1b_bytes")
    assert tokens is not None
    found = {split: list(documents_of(tokens[split])) for split in SPLITS}
    texts = documents(250)
    assert found["inner_valid"] == [texts[0], texts[100], texts[200]]
    assert found["outer_valid"] == [texts[1], texts[101], texts[201]]
    assert found["test"] == (["a test", "another"] if with_test else [texts[2], texts[102], texts[202]])
    used = [text for split in SPLITS for text in found[split] if text in texts]
    assert sorted(used) == sorted(texts)
    assert WorkspaceReader(workspace).count("lm1b_bytes") == sum(len(t) for t in tokens.values())


def test_a_limit_stops_reading(workspace: Workspace) -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "on and on"

    read = lambda: {"train": endless}
    assert prepare_text(workspace, "wikipedia_en_bytes", read, encode_bytes, Source("here", 10), nothing)
    tokens = WorkspaceReader(workspace).read_tokens("wikipedia_en_bytes")
    assert tokens is not None
    assert sum(len(list(documents_of(part))) for part in tokens.values()) == 10


def test_too_few_documents_are_refused(workspace: Workspace) -> None:
    with pytest.raises(DatasetSourceError, match="got none for train, test"):
        prepare_text(
            workspace, "lm1b_bytes", partial(read_documents, 2, False), encode_bytes, Source("here"), nothing
        )


def test_subwords_are_made_from_the_bytes_and_follow_them(workspace: Workspace) -> None:
    make = lambda: prepare_subwords(
        workspace, "lm1b_32k", "lm1b_bytes", documents_of, partial(train_vocabulary, vocab_size=400),
        encode_subwords, nothing,
    )  # fmt: skip
    prepare = lambda count: prepare_text(
        workspace,
        "lm1b_bytes",
        partial(read_documents, count, True),
        encode_bytes,
        Source("here", count),
        nothing,
    )
    prepare(150)
    assert make()
    assert not make()
    reader = WorkspaceReader(workspace)
    tokens, vocabulary = reader.read_tokens("lm1b_32k"), reader.vocabulary("lm1b_32k")
    assert tokens is not None
    assert vocabulary is not None
    by_hand = np.concatenate(list(encode_subwords(vocabulary, ["a test", "another"])))
    np.testing.assert_array_equal(tokens["test"], by_hand)
    prepare(250)
    assert make()  # the bytes have changed
