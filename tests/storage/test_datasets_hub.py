"""Data sets of the hub: the same calls on a local folder, with no network."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import images, png

from storage.dataset_formats.base import ImageRequest, Splits
from storage.datasets_hub import HUB, HubDataset, MissingExtraError, hub_images, hub_texts
from storage.errors import DatasetSourceError
from task_generator.datasets.source import resize_bytes


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
        return real(name, *arguments, **keywords)

    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    monkeypatch.setattr(builtins, "__import__", fail)
    texts = hub_texts(HUB["lm1b"], streaming=False)
    with pytest.raises(MissingExtraError, match=r"pip install -e '\.\[data\]'"):
        list(texts["train"]())
