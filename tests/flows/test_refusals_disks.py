"""Disks that are full, read-only or damaged, on the real commands: one clear line, and a way to go on.

The commands run in this process (see `conftest.keirin`); `tests/integration/test_resume.py` kills real ones.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curriculum.phase import Phase
from storage.bundles import DamagedBundleError
from storage.checkpoint_reading import verify
from storage.checkpoints import CheckpointStore
from storage.model_registry import ModelRegistry
from storage.workspace import Workspace

Keirin = Callable[..., Any]
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Prefect's client, when a flow fails
]


def flip(folder: Path) -> str:
    file = _largest(folder)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return str(file.relative_to(folder))


def truncate(folder: Path) -> str:
    file = _largest(folder)
    file.write_bytes(file.read_bytes()[:-3])
    return str(file.relative_to(folder))


def lose(folder: Path) -> str:
    file = _largest(folder)
    file.unlink()
    return str(file.relative_to(folder))


def _largest(folder: Path) -> Path:
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "manifest.json")
    return max(files, key=lambda file: (file.stat().st_size, file))


DAMAGES = pytest.mark.parametrize("damage", [flip, truncate, lose])


# --- Disks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "time", "report", "promote", "up"])
def test_a_home_that_cannot_be_written(keirin: Keirin, tmp_path: Path, command: str) -> None:
    """Tests may run as root, who may write anywhere, so a file is where the folder should be."""
    (tmp_path / "home").write_text("precious")
    answer = keirin(command)
    assert answer.code == 1
    assert answer.error.startswith(f"the workspace `{tmp_path / 'home'}` is a file")
    assert (tmp_path / "home").read_text() == "precious"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_home(
    keirin: Keirin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    answer = keirin("train")
    assert answer.code == 1
    assert answer.error.startswith(f"cannot prepare the workspace: `{tmp_path / 'home'}` is not accessible")


@pytest.mark.slow
def test_a_disk_that_fills_up_in_mid_phase(
    keirin: Keirin, workspace: Workspace, tiny: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the third checkpoint on nothing can be written; with space again, the end is the same."""
    reference = workspace.root.with_name("reference")
    shutil.copytree(workspace.root, reference)
    assert keirin("train", "--home", reference).code == 0
    synchronize, store = os.fsync, CheckpointStore(workspace.checkpoints)

    def fail_when_two_are_stored(descriptor: int) -> None:
        if len(store.list()) >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synchronize(descriptor)

    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "fsync", fail_when_two_are_stored)
        answer = keirin("train")
    assert answer.code == 1
    assert answer.error.startswith("cannot save checkpoint 'first-")
    assert "no space left on the disk of" in answer.error
    stored = store.list()
    assert [info.outer_step for info in stored] == [0, 1]
    for info in stored:
        verify(info)
    assert not [entry for entry in stored[0].path.parent.iterdir() if entry.name.startswith(".")]
    answer = keirin("train")
    assert answer.code == 0
    assert "continues from outer step 1 of 4" in answer.out
    assert _final(workspace.checkpoints) == _final(reference / "checkpoints")


@pytest.mark.slow
def test_checkpoints_become_read_only_in_an_asynchronous_phase(
    keirin: Keirin, workspace: Workspace, tiny: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the third checkpoint on none can be written: one error, and what was stored is gone on from."""
    synchronize, store = os.fsync, CheckpointStore(workspace.checkpoints)

    def refuse_when_two_are_stored(descriptor: int) -> None:
        if len(store.list()) >= 2:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        synchronize(descriptor)

    with monkeypatch.context() as read_only:
        read_only.setattr(os, "fsync", refuse_when_two_are_stored)
        answer = keirin("train", "--mode", "asynchronous")
    assert answer.code == 1
    assert answer.error.startswith("cannot save checkpoint 'first-")
    assert "is not accessible" in answer.error
    stored = store.list()
    assert [info.outer_step for info in stored] == [0, 1]
    for info in stored:
        verify(info)
    answer = keirin("train", "--mode", "asynchronous")
    assert answer.code == 0
    assert "continues from outer step 1 of 4" in answer.out
    (phase,) = store.phases()
    latest = store.latest(phase)
    assert latest is not None
    assert latest.outer_step == 4


@pytest.mark.slow
def test_a_full_disk_that_only_the_tracking_database_notices(
    keirin: Keirin, workspace: Workspace, tiny: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    def full(*_: object, **__: object) -> None:
        raise mlflow.exceptions.MlflowException("(sqlite3.OperationalError) database or disk is full")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(mlflow.tracking.MlflowClient, "log_batch", full)
        answer = keirin("train")
    assert answer.code == 1
    assert answer.error.startswith("cannot record params: no space left on the disk of")
    assert keirin("train").code == 0


def _final(checkpoints: Path) -> str:
    store = CheckpointStore(checkpoints)
    (phase,) = store.phases()
    latest = store.latest(phase)
    assert latest is not None
    assert latest.outer_step == 4
    return store.load(latest).digest


# --- Damaged checkpoints -------------------------------------------------------------------------------------


@DAMAGES
@pytest.mark.parametrize("command", ["evaluate", "promote"])
def test_a_damaged_champion_is_refused_by_name_and_the_previous_one_offered(
    keirin: Keirin, champions: Workspace, pool: Any, command: str, damage: Callable[[Path], str]
) -> None:
    file = damage(ModelRegistry(champions).resolve("champion"))
    answer = keirin(command, "champion")
    assert answer.code == 1
    assert answer.error.startswith("'champion': checkpoint 'first' step 2 is damaged: ")
    assert f"`{file}`" in answer.error
    assert answer.error.endswith(
        "The alias 'previous-champion' is good: use 'models:/keirin@previous-champion'."
    )
    assert pool.num_units == 0


@DAMAGES
def test_a_damaged_folder_is_refused_and_the_previous_step_offered(
    keirin: Keirin, champions: Workspace, damage: Callable[[Path], str]
) -> None:
    store = CheckpointStore(champions.checkpoints)
    damage(store.info("first", 2).path)
    answer = keirin("evaluate", store.info("first", 2).path)
    assert answer.code == 1
    assert f"The last good one is step 1: use `{store.info('first', 1).path}`" in answer.error


@DAMAGES
def test_a_stopped_phase_passes_over_a_damaged_checkpoint(
    keirin: Keirin,
    workspace: Workspace,
    tiny: tuple[Phase, ...],
    damage: Callable[[Path], str],
) -> None:
    assert keirin("train", "--phase", "first").code == 0
    store = CheckpointStore(workspace.checkpoints)
    expected = _final(workspace.checkpoints)
    (phase,) = store.phases()
    for file in (workspace.root / "artifacts").glob("phase-*.json"):
        if not file.name.startswith("phase-tasks"):
            file.unlink()  # as if it had been killed before it was complete
    damage(store.info(phase, 4).path)
    answer = keirin("train", "--phase", "first")
    assert answer.code == 0
    assert f"checkpoint {phase!r} step 4 is damaged" in " ".join(answer.out.split())
    assert "continues from outer step 3 of 4" in answer.out
    assert _final(workspace.checkpoints) == expected


def test_a_damaged_promoted_checkpoint_is_refused_and_made_again(
    keirin: Keirin, workspace: Workspace, tiny: tuple[Phase, ...]
) -> None:
    assert keirin("train", "--phase", "first").code == 0
    registry = ModelRegistry(workspace)
    flip(registry.resolve("first"))
    with pytest.raises(DamagedBundleError):
        verify_alias(registry, "first")
    answer = keirin("train", "--phase", "second")
    assert answer.code == 1
    assert answer.error.startswith("phase 'second' cannot start: checkpoint 'first-")
    assert "run `keirin train --phase first`" in answer.error
    assert "is damaged: it is made again" in keirin("train", "--phase", "first").out
    verify_alias(registry, "first")
    assert keirin("train", "--phase", "second").code == 0


def verify_alias(registry: ModelRegistry, alias: str) -> None:
    from storage.checkpoint_reading import locate

    verify(locate(registry.resolve(alias)))
