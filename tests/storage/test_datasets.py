"""Preparing images: which example goes into which split, in which sizes they are kept, and how they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from dataset_files import write_mnist
from prepared_datasets import NUM_TEST, NUM_TRAIN, prepare_mnist

from storage.dataset_arrays import ArrayFolderWriter, open_arrays
from storage.datasets import NATIVE, SPLITS, WorkspaceReader, dataset_folder, prepared_parts
from storage.errors import DatasetSourceError
from storage.workspace import Workspace
from task_generator.datasets.source import resize_bytes


def rows_of(array: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in np.asarray(array)]


def test_the_training_set_is_shuffled_and_cut_and_the_test_set_is_the_test(
    workspace: Workspace, tmp_path: Path, files: Path
) -> None:
    contents = write_mnist(tmp_path / "again", NUM_TRAIN, NUM_TEST)
    assert prepare_mnist(workspace, files) == [NATIVE]
    splits = WorkspaceReader(workspace).read_images("mnist", 28)
    assert splits is not None
    assert [len(splits[split][1]) for split in SPLITS] == [48, 6, 6, 20]
    known = dict(zip(rows_of(contents["train_images"]), contents["train_labels"].tolist(), strict=True))
    drawn = [row for split in SPLITS[:3] for row in rows_of(splits[split][0])]
    assert sorted(drawn) == sorted(known)  # disjoint, and nothing is lost
    for split in SPLITS[:3]:
        assert [known[row] for row in rows_of(splits[split][0])] == splits[split][1].tolist()
    assert (
        len(set(splits["train"][1].tolist())) == 10
    )  # the files are sorted by class: unshuffled it would be 8
    assert sorted(rows_of(splits["test"][0])) == sorted(rows_of(contents["t10k_images"]))


def test_without_a_test_set_the_last_tenth_is_the_test(workspace: Workspace, files: Path) -> None:
    for path in files.glob("t10k*"):
        path.unlink()
    prepare_mnist(workspace, files)
    splits = WorkspaceReader(workspace).read_images("mnist", 28)
    assert splits is not None
    assert [len(splits[split][1]) for split in SPLITS] == [42, 6, 6, 6]
    assert len({row for split in SPLITS for row in rows_of(splits[split][0])}) == NUM_TRAIN


def test_what_is_stored_is_mapped_into_memory_and_any_zarr_reader_can_open_it(
    workspace: Workspace, files: Path
) -> None:
    prepare_mnist(workspace, files)
    splits = WorkspaceReader(workspace).read_images("mnist", 28)
    assert splits is not None
    assert all(isinstance(array, np.memmap) for pair in splits.values() for array in pair)
    assert not splits["train"][0].flags.writeable
    group = zarr.open_group(dataset_folder(workspace, "mnist", NATIVE), mode="r")
    for split in SPLITS:
        np.testing.assert_array_equal(group[f"{split}_images"][:], splits[split][0])
        np.testing.assert_array_equal(group[f"{split}_labels"][:], splits[split][1])


def test_preparing_again_does_nothing_and_another_size_needs_no_files(
    workspace: Workspace, files: Path
) -> None:
    assert prepare_mnist(workspace, files, (14,)) == [NATIVE, "14"]
    assert prepare_mnist(workspace, files, (14,)) == []
    gone = files.rename(files.parent / "elsewhere")
    assert prepare_mnist(workspace, files, (14, 7)) == ["7"]
    assert set(prepared_parts(workspace, "mnist")) == {NATIVE, "14", "7"}
    assert gone.is_dir()
    reader = WorkspaceReader(workspace)
    native, small = reader.read_images("mnist", 28), reader.read_images("mnist", 7)
    assert native is not None
    assert small is not None
    for split in SPLITS:
        np.testing.assert_array_equal(small[split][0], resize_bytes(np.asarray(native[split][0]), 7))
        np.testing.assert_array_equal(small[split][1], native[split][1])


def test_a_size_that_is_not_prepared_is_answered_with_the_native_one(
    workspace: Workspace, files: Path
) -> None:
    prepare_mnist(workspace, files, (14,))
    reader = WorkspaceReader(workspace)
    sides = {size: reader.read_images("mnist", size)["train"][0].shape[1] for size in (28, 14, 9)}  # type: ignore[index]
    assert sides == {28: 28, 14: 14, 9: 28}
    assert reader.count("mnist") == NUM_TRAIN + NUM_TEST
    assert reader.read_images("cifar10", 32) is None
    assert reader.count("cifar10") is None


def test_a_part_of_a_set_grows_when_more_is_asked_for(workspace: Workspace, files: Path) -> None:
    prepare_mnist(workspace, files, (7,), max_examples=20)
    few = WorkspaceReader(workspace).read_images("mnist", 28)
    assert few is not None
    assert [len(few[split][1]) for split in SPLITS] == [16, 2, 2, 20]
    assert len(set(few["train"][1].tolist())) > 5  # from all over the files, which are sorted by class
    assert prepare_mnist(workspace, files, max_examples=10) == []
    assert prepare_mnist(workspace, files) == [NATIVE]
    assert WorkspaceReader(workspace).count("mnist") == NUM_TRAIN + NUM_TEST
    assert set(prepared_parts(workspace, "mnist")) == {NATIVE}  # the stale size is gone
    assert prepare_mnist(workspace, files, max_examples=10) == []  # all there is, is there


def test_too_few_images_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    write_mnist(tmp_path / "few", 5, 5)
    with pytest.raises(DatasetSourceError, match=r"train set of 'mnist' must have at least 9 images.*got 5"):
        prepare_mnist(workspace, tmp_path / "few")


def test_a_writer_needs_memory_for_its_rows_only(tmp_path: Path) -> None:
    import tracemalloc

    rows = np.zeros((64, 32, 32, 3), np.uint8)
    tracemalloc.start()
    with ArrayFolderWriter(tmp_path / "big") as writer:
        for _ in range(200):  # 39 MB
            writer.append("images", rows)
        writer.commit({})
    arrays, _ = open_arrays(tmp_path / "big")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert arrays["images"].shape == (12_800, 32, 32, 3)
    assert peak < 16 * 2**20
