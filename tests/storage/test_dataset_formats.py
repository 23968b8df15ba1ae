"""Readers of every format of public data: exactly what is in the files, or an error that names the fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from dataset_files import cifar_record, images, png, write_idx, write_mnist
from PIL import Image

from storage.dataset_formats import cifar, read_images
from storage.dataset_formats.base import ImageRequest, Splits
from storage.dataset_formats.idx import read_idx
from storage.dataset_formats.text_files import read_texts
from storage.errors import DatasetSourceError


def same_size_only(pixels: np.ndarray, side: int) -> np.ndarray:
    assert pixels.shape[1:3] == (side, side)
    return pixels


def nearest(pixels: np.ndarray, side: int) -> np.ndarray:
    rows = np.arange(side) * pixels.shape[1] // side
    columns = np.arange(side) * pixels.shape[2] // side
    return pixels[:, rows][:, :, columns]


MNIST = ImageRequest(28, 1, 10, same_size_only)
CIFAR10 = ImageRequest(32, 3, 10, same_size_only)
CIFAR100 = ImageRequest(32, 3, 100, same_size_only)
TINY = ImageRequest(4, 3, 3, nearest)


def gather(splits: Splits, split: str) -> tuple[np.ndarray, np.ndarray]:
    chunks = list(splits[split]())
    return np.concatenate([c[0] for c in chunks]), np.concatenate([c[1] for c in chunks])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx(tmp_path: Path, suffix: str) -> None:
    contents = write_mnist(tmp_path, suffix=suffix)
    name, splits = read_images(tmp_path, MNIST)
    assert name == "IDX"
    for split, prefix in (("train", "train"), ("test", "t10k")):
        found_images, found_labels = gather(splits, split)
        np.testing.assert_array_equal(found_images, contents[f"{prefix}_images"])
        np.testing.assert_array_equal(found_labels, contents[f"{prefix}_labels"])


def test_a_truncated_idx_file_is_refused_with_both_lengths(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    write_idx(path, images(3, 28, 1)[..., 0])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        DatasetSourceError, match=r"must have 2368 bytes for an array of \[3, 28, 28\], got 2363"
    ):
        read_idx(path)


def test_a_truncated_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    write_idx(path, images(3, 28, 1)[..., 0])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DatasetSourceError, match="cannot be read"):
        read_idx(path)


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, suffix="")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DatasetSourceError, match="both images and labels"):
        read_images(tmp_path, MNIST)


def test_cifar_10_binary_keeps_planes_and_batches_apart(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    pixels = images(9, 32, 3)
    for batch in range(2):
        records = [cifar_record(pixels[i], (i,)) for i in range(4 * batch, 4 * batch + 4)]
        (folder / f"data_batch_{batch + 1}.bin").write_bytes(b"".join(records))
    (folder / "test_batch.bin").write_bytes(cifar_record(pixels[8], (8,)))
    name, splits = read_images(tmp_path, CIFAR10)
    assert name == "CIFAR binary"
    found_images, found_labels = gather(splits, "train")
    np.testing.assert_array_equal(found_images, pixels[:8])
    assert found_labels.tolist() == list(range(8))
    np.testing.assert_array_equal(gather(splits, "test")[0], pixels[8:])


def test_of_cifar_100s_two_labels_the_fine_one_counts(tmp_path: Path) -> None:
    pixels = images(2, 32, 3)
    (tmp_path / "train.bin").write_bytes(cifar_record(pixels[0], (3, 77)) + cifar_record(pixels[1], (4, 99)))
    _, splits = read_images(tmp_path, CIFAR100)
    found_images, found_labels = gather(splits, "train")
    np.testing.assert_array_equal(found_images, pixels)
    assert found_labels.tolist() == [77, 99]


def test_half_a_cifar_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.bin"
    path.write_bytes(bytes(3073 + 7))
    with pytest.raises(DatasetSourceError, match="whole number of records of 3073 bytes, got 3080"):
        cifar.read_records(path, 1)


def test_pickled_cifar_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DatasetSourceError, match=r"pickled and is not read.*cifar-10-binary\.tar\.gz"):
        read_images(tmp_path, CIFAR10)


def test_labels_of_another_data_set_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(cifar_record(images(1, 32, 3)[0], (1, 77)))
    _, splits = read_images(tmp_path, CIFAR10)
    with pytest.raises(DatasetSourceError, match="from 0 to 9, got 77 to 77"):
        gather(splits, "train")


def test_npz(tmp_path: Path) -> None:
    pixels = images(6, 28, 1)
    np.savez(
        tmp_path / "mnist.npz",
        x_train=pixels[:4, ..., 0], y_train=np.arange(4), x_test=pixels[4:, ..., 0], y_test=np.arange(2)[:, None],
    )  # fmt: skip
    name, splits = read_images(tmp_path, MNIST)
    assert name == "npz"
    np.testing.assert_array_equal(gather(splits, "train")[0], pixels[:4])
    assert gather(splits, "test")[1].tolist() == [0, 1]


def test_downsampled_imagenet_counts_labels_from_one(tmp_path: Path) -> None:
    pixels = images(4, 4, 3)
    flat = pixels.transpose(0, 3, 1, 2).reshape(4, -1)
    np.savez(tmp_path / "train_data_batch_1.npz", data=flat[:2], labels=np.array([1, 2]))
    np.savez(tmp_path / "train_data_batch_2.npz", data=flat[2:3], labels=np.array([3]))
    np.savez(tmp_path / "val_data.npz", data=flat[3:], labels=np.array([3]))
    _, splits = read_images(tmp_path, TINY)
    found_images, found_labels = gather(splits, "train")
    np.testing.assert_array_equal(found_images, pixels[:3])
    assert found_labels.tolist() == [0, 1, 2]
    assert gather(splits, "test")[1].tolist() == [2]


def test_a_pickle_inside_an_archive_is_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "exploded",))  # type: ignore[return-value]

    objects = np.array([Bomb()], dtype=object)
    np.savez(tmp_path / "mnist.npz", x_train=objects, y_train=np.zeros(1, int))
    _, splits = read_images(tmp_path, MNIST)
    with pytest.raises(DatasetSourceError, match="Nothing pickled is read"):
        gather(splits, "train")
    assert not (tmp_path / "exploded").exists()


def test_an_archive_with_other_arrays_says_which(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pictures=np.zeros(3))
    _, splits = read_images(tmp_path, MNIST)
    with pytest.raises(DatasetSourceError, match=r"x_train, y_train is missing among pictures"):
        gather(splits, "train")


def test_image_folder(tmp_path: Path) -> None:
    colours = {"apple": (250, 0, 0), "lime": (0, 250, 0), "plum": (90, 0, 90)}
    for split in ("train", "val"):
        for name, colour in colours.items():
            (tmp_path / split / name).mkdir(parents=True)
            pixels = np.full((4, 4, 3), colour, np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / name / "1.png")
            Image.fromarray(np.full((6, 8, 3), colour, np.uint8)).save(
                tmp_path / split / name / "2.JPG", quality=100, subsampling=0
            )
            (tmp_path / split / name / "notes.txt").write_text("not an image")
    name, splits = read_images(tmp_path, TINY)
    assert name == "image folder"
    found_images, found_labels = gather(splits, "test")
    assert found_images.shape == (6, 4, 4, 3)
    assert found_labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = np.array(list(colours.values()))[found_labels][:, None, None]
    assert np.abs(found_images.astype(int) - expected).max() <= 3  # JPEG rounds


def test_a_class_that_is_missing_would_shift_the_labels(tmp_path: Path) -> None:
    for name in ("apple", "plum"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png(images(1, 4, 3)[0]))
    with pytest.raises(DatasetSourceError, match="3 folders, one per class, got 2"):
        read_images(tmp_path, TINY)


def test_folders_called_by_numbers_are_those_classes(tmp_path: Path) -> None:
    pixels = images(1, 4, 3)
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "1.png").write_bytes(png(pixels[0]))
    _, splits = read_images(tmp_path, TINY)
    found_images, found_labels = gather(splits, "train")
    np.testing.assert_array_equal(found_images, pixels)
    assert found_labels.tolist() == [2]


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    path = tmp_path / "0" / "broken.png"
    path.write_bytes(png(images(1, 4, 3)[0])[:60])
    _, splits = read_images(tmp_path, TINY)
    with pytest.raises(DatasetSourceError, match=r"broken\.png"):
        gather(splits, "train")


@pytest.mark.parametrize(("stored", "asked"), [(1, 3), (3, 1)])
def test_grey_and_colour_become_each_other(tmp_path: Path, stored: int, asked: int) -> None:
    pixels = images(1, 4, stored)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "1.png").write_bytes(png(pixels[0]))
    _, splits = read_images(tmp_path, ImageRequest(4, asked, 1, same_size_only))
    mean = np.rint(pixels.astype(np.float64).mean(axis=3, keepdims=True)).astype(np.uint8)
    np.testing.assert_array_equal(gather(splits, "train")[0], np.broadcast_to(mean, (1, 4, 4, asked)))


def test_parquet_of_encoded_images(tmp_path: Path) -> None:
    pixels = images(5, 4, 3)
    cells = [{"bytes": png(image), "path": None} for image in pixels]
    (tmp_path / "data").mkdir()
    for name, part in (
        ("train-00000-of-00002", [0, 1]),
        ("train-00001-of-00002", [2, 3]),
        ("test-00000", [4]),
    ):
        table = pa.table({"img": [cells[i] for i in part], "label": [i % 3 for i in part]})
        pq.write_table(table, tmp_path / "data" / f"{name}.parquet")
    name, splits = read_images(tmp_path, TINY)
    assert name == "parquet"
    found_images, found_labels = gather(splits, "train")
    np.testing.assert_array_equal(found_images, pixels[:4])
    assert found_labels.tolist() == [0, 1, 2, 0]
    np.testing.assert_array_equal(gather(splits, "test")[0], pixels[4:])


def test_a_parquet_file_without_the_column_says_what_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"picture": [b""], "label": [0]}), tmp_path / "train.parquet")
    _, splits = read_images(tmp_path, TINY)
    with pytest.raises(DatasetSourceError, match="a column 'image' or 'img', got picture, label"):
        gather(splits, "train")


def test_matlab_files_of_street_numbers_call_zero_ten(tmp_path: Path) -> None:
    pixels = images(3, 32, 3)
    contents = {"X": pixels.transpose(1, 2, 3, 0), "y": np.array([[10], [1], [9]], np.uint8)}
    scipy.io.savemat(tmp_path / "train_32x32.mat", contents)
    name, splits = read_images(tmp_path, CIFAR10)
    assert name == "Matlab"
    found_images, found_labels = gather(splits, "train")
    np.testing.assert_array_equal(found_images, pixels)
    assert found_labels.tolist() == [0, 1, 9]


def test_large_arrays_come_in_chunks_that_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.dataset_formats.base.CHUNK_BYTES", 28 * 28 * 7)
    contents = write_mnist(tmp_path)
    _, splits = read_images(tmp_path, MNIST)
    chunks = [chunk[0] for chunk in splits["train"]()]
    assert {len(chunk) for chunk in chunks} == {7, 60 % 7}
    np.testing.assert_array_equal(np.concatenate(chunks), contents["train_images"])


def test_a_folder_in_no_format_lists_the_formats(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetSourceError, match=r"none of the known formats: IDX, CIFAR binary.*docs/data\.md"
    ):
        read_images(tmp_path, MNIST)
    with pytest.raises(DatasetSourceError, match="must be a folder"):
        read_images(tmp_path / "missing", MNIST)


def test_text_files_hold_a_document_each_or_one_per_line(tmp_path: Path) -> None:
    (tmp_path / "train-1.txt").write_text("eins\nzwei\n\n", encoding="utf-8")
    (tmp_path / "train-2.txt").write_text("größer", encoding="utf-8")
    (tmp_path / "test.txt").write_text("drei", encoding="utf-8")
    whole = read_texts(tmp_path, document_per_line=False)
    assert list(whole["train"]()) == ["eins\nzwei\n\n", "größer"]
    assert list(whole["test"]()) == ["drei"]
    assert list(read_texts(tmp_path, document_per_line=True)["train"]()) == ["eins", "zwei", "größer"]


def test_the_billion_word_benchmarks_own_folders(tmp_path: Path) -> None:
    for folder, text in (("training", "a b\nc\n"), ("heldout", "d\n")):
        place = tmp_path / f"{folder}-monolingual.tokenized.shuffled"
        place.mkdir()
        (place / "news.en-00001-of-00100").write_text(text)
    splits = read_texts(tmp_path, document_per_line=True)
    assert list(splits["train"]()) == ["a b", "c"]
    assert list(splits["test"]()) == ["d"]


def test_texts_in_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "text": ["one", "two"]}), tmp_path / "train-0.parquet")
    assert list(read_texts(tmp_path, document_per_line=False)["train"]()) == ["one", "two"]


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetSourceError, match=r"a\.txt` is not text in UTF-8"):
        list(read_texts(tmp_path, document_per_line=False)["train"]())
