"""Where the workspace is, what it creates, and how it says that it cannot."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from storage import workspace as module
from storage.errors import ReadOnlyStorageError, StorageError, StorageFullError, UnsafePathError
from storage.workspace import Workspace


def test_the_argument_wins_over_the_variable_and_that_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KEIRIN_HOME", raising=False)
    assert Workspace().root == tmp_path / ".keirin"
    monkeypatch.setenv("KEIRIN_HOME", str(tmp_path / "home"))
    assert Workspace().root == tmp_path / "home"
    assert Workspace("mine").root == tmp_path / "mine"


def test_it_stays_where_it_was_when_the_current_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = Workspace("mine")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert workspace.ensure().checkpoints == tmp_path / "mine" / "checkpoints"
    assert workspace == Workspace(tmp_path / "mine")


def test_ensure_creates_the_folders_and_keeps_git_out(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "a" / "b").ensure().ensure()
    assert {"checkpoints", "reports", "logs", "prefect"} <= set(os.listdir(workspace.root))
    assert (workspace.root / ".gitignore").read_text() == "*\n"
    assert not list(workspace.root.glob(".tmp*"))


@pytest.mark.parametrize("root", ["", "  ", "a\0b", "s3://bucket/keirin", "/", "/srv/.."])
def test_what_cannot_be_a_workspace(root: str) -> None:
    with pytest.raises(UnsafePathError):
        Workspace(root)


def test_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReadOnlyStorageError, match="is a file"):
        Workspace(tmp_path / "file").ensure()
    with pytest.raises(StorageError, match="prepare the workspace"):
        Workspace(tmp_path / "file" / "below").ensure()


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, StorageFullError), (errno.EROFS, ReadOnlyStorageError)]
)
def test_a_disk_that_cannot_be_written(
    number: int, expected: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "write_file", fail)
    with pytest.raises(expected) as caught:
        Workspace(tmp_path / "w").ensure()
    assert str(tmp_path / "w") in str(caught.value)
    assert "KEIRIN_HOME" in str(caught.value)


def test_state_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path / "w").ensure()
    assert workspace.read_state() == {}
    workspace.write_state({"sampled": 60})
    with pytest.raises(ValueError, match="JSON"):
        workspace.write_state({"bad": float("nan")})

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(StorageError, match="I/O error"):
            workspace.write_state({"sampled": 61})
    assert workspace.read_state() == {"sampled": 60}
    assert not list(workspace.root.glob("state.json.*"))
    workspace.state_file.write_text("{")
    with pytest.raises(StorageError, match="Remove it"):
        workspace.read_state()
