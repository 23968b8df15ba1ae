from __future__ import annotations

import builtins
import multiprocessing
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from dataset_files import images, png, write_mnist
from dataset_processes import ask_cache, prepare_and_die

from storage import dataset_arrays
from storage.dataset_arrays import ArrayFolderWriter, open_arrays
from storage.dataset_formats import read_images
from storage.dataset_formats.base import ImageRequest, Splits
from storage.datasets import NATIVE, SPLITS, WorkspaceReader, dataset_folder, prepared_parts
from storage.datasets_hub import HUB, HubDataset, MissingExtraError, hub_images, hub_texts
from storage.datasets_preparation import Source, complete, prepare_images, prepare_subwords, prepare_text
from storage.errors import DamagedDatasetError, DatasetSourceError
from storage.workspace import Workspace
from task_generator.datasets.byte_tokens import documents_of, encode_bytes
from task_generator.datasets.source import resize_bytes
from task_generator.datasets.subwords import encode_subwords, train_vocabulary

MNIST = ImageRequest(28, 1, 10, resize_bytes)
NUM_TRAIN, NUM_TEST = 60, 20


def nothing(doing: str, count: int) -> None:
    del doing, count


def prepare_mnist(
    workspace: Workspace, folder: Path, sizes: tuple[int, ...] = (), max_examples: int | None = None
) -> list[str]:
    read = lambda: read_images(folder, MNIST)[1]
    source = Source(str(folder), max_examples)
    return prepare_images(workspace, "mnist", MNIST, read, source, sizes, nothing)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home").ensure()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_mnist(tmp_path / "files", NUM_TRAIN, NUM_TEST)
    return tmp_path / "files"


def forget_what_was_verified() -> None:
    """As a new process would find things."""
    dataset_arrays._verified.clear()


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


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "flipped": (flip, "checksum mismatch"),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size - 1), "bytes instead of"),
    "missing": (Path.unlink, "is missing"),
}


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


# Texts


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


# The cache


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


# The hub: the same call on a local folder, with no network.


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the library's own imports
def test_images_come_through_the_library(hub_folder: Path, tmp_path: Path) -> None:
    pixels = images(6, 4, 3)
    for split, part in (("train", range(4)), ("validation", range(4, 6))):
        cells = [{"bytes": png(pixels[i]), "path": None} for i in part]
        pq.write_table(
            pa.table({"image": cells, "label": [i % 3 for i in part]}), hub_folder / f"{split}-00000.parquet"
        )
    dataset = HubDataset(str(hub_folder.parent), "image", "label", splits=HUB["food101"].splits)
    splits: Splits = hub_images(dataset, ImageRequest(4, 3, 3, resize_bytes), tmp_path / "cache")
    [(train_images, train_labels)] = splits["train"]()
    np.testing.assert_array_equal(train_images, pixels[:4])
    assert train_labels.tolist() == [0, 1, 2, 0]
    [(test_images, _)] = splits["test"]()
    np.testing.assert_array_equal(test_images, pixels[4:])


@pytest.mark.parametrize("streaming", [False, True])
def test_texts_come_through_the_library(hub_folder: Path, tmp_path: Path, streaming: bool) -> None:
    pq.write_table(pa.table({"text": ["one", "", "two"]}), hub_folder / "train-00000.parquet")
    dataset = HubDataset(str(hub_folder.parent), "text", splits={"train": "train"})
    texts = hub_texts(dataset, streaming=streaming, cache=tmp_path / "cache")
    assert list(texts["train"]()) == ["one", "two"]


def test_what_cannot_be_got_is_one_error(hub_folder: Path, tmp_path: Path) -> None:
    texts = hub_texts(
        HubDataset(str(tmp_path / "missing"), "text"), streaming=False, cache=tmp_path / "cache"
    )
    with pytest.raises(DatasetSourceError, match=r"could not be got.*--from FOLDER"):
        list(texts["train"]())


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fail(name: str, *arguments: object, **keywords: object) -> object:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    monkeypatch.setattr(builtins, "__import__", fail)
    texts = hub_texts(HUB["lm1b"], streaming=False)
    with pytest.raises(MissingExtraError, match=r"pip install -e '\.\[data\]'"):
        list(texts["train"]())


def test_incomplete_is_what_is_not_there(tmp_path: Path) -> None:
    assert complete(tmp_path / "nothing") is None
