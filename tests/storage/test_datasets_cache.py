"""The cache of made data: made once per key, made again when damaged, and no obstacle without a workspace."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from dataset_processes import ask_cache
from prepared_datasets import DAMAGE, forget_what_was_verified

from storage.datasets import SPLITS, WorkspaceReader, dataset_folder
from storage.workspace import Workspace


def make_tokens(value: int) -> dict[str, np.ndarray]:
    return {split: np.full(5, value, np.uint16) for split in SPLITS}


def test_what_is_made_is_kept_under_its_key(workspace: Workspace) -> None:
    reader = WorkspaceReader(workspace)
    assert reader.cached("english_subwords", "a", lambda: make_tokens(1))["train"][0] == 1
    assert reader.cached("english_subwords", "a", lambda: make_tokens(2))["train"][0] == 1
    assert reader.cached("english_subwords", "b", lambda: make_tokens(3))["train"][0] == 3


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_kept_and_damaged_is_made_again(workspace: Workspace, kind: str) -> None:
    reader = WorkspaceReader(workspace)
    reader.cached("english_subwords", "a", lambda: make_tokens(1))
    DAMAGE[kind][0](dataset_folder(workspace, "english_subwords", "cache-a") / "train_tokens" / "0")
    forget_what_was_verified()
    assert reader.cached("english_subwords", "a", lambda: make_tokens(2))["train"].tolist() == [2] * 5
    assert reader.cached("english_subwords", "a", lambda: make_tokens(3))["train"].tolist() == [2] * 5


def test_without_a_workspace_nothing_is_kept_and_none_appears(tmp_path: Path) -> None:
    reader = WorkspaceReader(Workspace(tmp_path / "none"))
    for value in (1, 2):
        assert (
            reader.cached("english_subwords", "a", lambda value=value: make_tokens(value))["test"][0] == value
        )
    assert not (tmp_path / "none").exists()


def test_a_workspace_that_cannot_be_written_is_no_obstacle(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert WorkspaceReader(workspace).cached("x", "a", lambda: make_tokens(4))["train"][0] == 4


def test_processes_that_ask_at_once_make_it_once(workspace: Workspace, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    processes = [context.Process(target=ask_cache, args=(workspace.root, log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 3
    assert log.read_text() == "made\n"
