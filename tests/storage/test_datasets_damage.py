"""Prepared data that are damaged, or whose preparation was stopped: one error, one command, nothing half done."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from dataset_processes import prepare_and_die
from prepared_datasets import DAMAGE, MNIST, flip, forget_what_was_verified, prepare_mnist

from storage.dataset_formats import read_images
from storage.datasets import NATIVE, WorkspaceReader, dataset_folder, prepared_parts
from storage.datasets_preparation import Source, complete, prepare_images
from storage.errors import DamagedDatasetError
from storage.workspace import Workspace


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", ["train_images/0.0.0.0", "test_labels/0", "train_images/zarr.json"])
def test_damage_is_one_error_with_the_command_that_repairs_it(
    workspace: Workspace, files: Path, kind: str, name: str
) -> None:
    prepare_mnist(workspace, files)
    harm, problem = DAMAGE[kind]
    harm(dataset_folder(workspace, "mnist", NATIVE) / name)
    forget_what_was_verified()
    command = f"`keirin data prepare mnist --from {files}`"
    with pytest.raises(DamagedDatasetError, match=problem) as caught:
        WorkspaceReader(workspace).read_images("mnist", 28)
    assert str(caught.value).endswith(f"Repair it with {command}.")
    assert prepare_mnist(workspace, files) == [NATIVE]  # which does
    assert WorkspaceReader(workspace).read_images("mnist", 28) is not None


def test_a_damaged_size_is_repaired_from_the_native_images(workspace: Workspace, files: Path) -> None:
    prepare_mnist(workspace, files, (7,))
    flip(dataset_folder(workspace, "mnist", "7") / "train_images" / "0.0.0.0")
    forget_what_was_verified()
    with pytest.raises(DamagedDatasetError, match=r"keirin data prepare mnist --size 7`"):
        WorkspaceReader(workspace).read_images("mnist", 7)
    assert prepare_mnist(workspace, files / "gone", (7,)) == ["7"]


def test_a_damaged_manifest_is_damage_too(workspace: Workspace, files: Path) -> None:
    prepare_mnist(workspace, files)
    flip(dataset_folder(workspace, "mnist", NATIVE) / "manifest.json")
    with pytest.raises(DamagedDatasetError, match="keirin data prepare mnist"):
        prepared_parts(workspace, "mnist")


def test_contents_are_checked_once_per_process_and_sizes_always(workspace: Workspace, files: Path) -> None:
    prepare_mnist(workspace, files)
    reader = WorkspaceReader(workspace)
    reader.read_images("mnist", 28)
    path = dataset_folder(workspace, "mnist", NATIVE) / "test_labels" / "0"
    flip(path)
    assert reader.read_images("mnist", 28) is not None
    os.truncate(path, 3)
    with pytest.raises(DamagedDatasetError):
        reader.read_images("mnist", 28)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stage", ["reading train", "writing train", "writing test", "resizing to 7"])
def test_an_interruption_leaves_nothing_half_done(workspace: Workspace, files: Path, stage: str) -> None:
    def stop(doing: str, count: int) -> None:
        del count
        if doing == stage:
            raise StoppedError

    read = lambda: read_images(files, MNIST)[1]
    with pytest.raises(StoppedError):
        prepare_images(workspace, "mnist", MNIST, read, Source(str(files)), (7,), stop)
    parts = prepared_parts(workspace, "mnist")
    assert set(parts) == ({NATIVE} if stage == "resizing to 7" else set())
    place = dataset_folder(workspace, "mnist", "")
    assert not [path.name for path in place.iterdir() if path.name.startswith(".tmp")]
    expected = ["7"] if stage == "resizing to 7" else [NATIVE, "7"]
    assert prepare_mnist(workspace, files, (7,)) == expected


def test_what_a_killed_process_left_is_removed(workspace: Workspace, files: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=prepare_and_die, args=(workspace.root, files))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    place = dataset_folder(workspace, "mnist", "")
    assert [path for path in place.iterdir() if path.name.startswith(".tmp")]
    assert prepare_mnist(workspace, files) == [NATIVE]
    assert not [path for path in place.iterdir() if path.name.startswith(".tmp")]


def test_incomplete_is_what_is_not_there(tmp_path: Path) -> None:
    assert complete(tmp_path / "nothing") is None
