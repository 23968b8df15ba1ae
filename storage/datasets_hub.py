"""Public data sets by name, through Hugging Face's `datasets` (the extra `data`); here is where each one is found.

Chosen over tensorflow-datasets: that needs TensorFlow to prepare a set, while this one reads parquet with
pyarrow, which is here anyway, and `load_dataset` on a local folder is the same code as on a name, so that it is
tested without a network. Nothing here touches the network before `load` is called.

The names on the hub are those of the sets' usual copies. ImageNet's are copies at 32 and 64 pixels, whose way
of downsampling is not that of the published archives (which `--from` reads); 16 pixels are made from 32. The
test set of ImageNet and of Food-101 is what the hub calls validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from storage.dataset_formats.base import Chunk, ImageRequest, Splits, decode_all
from storage.dataset_formats.parquet import encoded_image
from storage.dataset_formats.text_files import Texts
from storage.errors import DatasetSourceError

_TRAIN_AND_TEST = {"train": "train", "test": "test"}
_TRAIN_AND_VALIDATION = {"train": "train", "test": "validation"}


class MissingExtraError(ImportError):
    """The optional library that gets public data sets is not installed."""


@dataclass(frozen=True)
class HubDataset:
    """Where a data set is on the hub.

    Attributes:
      path: Its name there, or a local folder.
      config: Which of its configurations, where it has several.
      splits: The hub's name of the official splits.
      column: With the images or the texts.
      label: Column of the labels; None for a text.
    """

    path: str
    column: str
    label: str | None = None
    config: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: _TRAIN_AND_TEST)


HUB: dict[str, HubDataset] = {
    "mnist": HubDataset("ylecun/mnist", "image", "label"),
    "fashion_mnist": HubDataset("zalando-datasets/fashion_mnist", "image", "label"),
    "cifar10": HubDataset("uoft-cs/cifar10", "img", "label"),
    "cifar100": HubDataset("uoft-cs/cifar100", "img", "fine_label"),
    "svhn": HubDataset("ufldl-stanford/svhn", "image", "label", config="cropped_digits"),
    "imagenet16": HubDataset(
        "benjamin-paine/imagenet-1k-32x32", "image", "label", splits=_TRAIN_AND_VALIDATION
    ),
    "imagenet32": HubDataset(
        "benjamin-paine/imagenet-1k-32x32", "image", "label", splits=_TRAIN_AND_VALIDATION
    ),
    "imagenet64": HubDataset(
        "benjamin-paine/imagenet-1k-64x64", "image", "label", splits=_TRAIN_AND_VALIDATION
    ),
    "food101": HubDataset("ethz/food101", "image", "label", splits=_TRAIN_AND_VALIDATION),
    "lm1b": HubDataset("dvruette/lm1b", "text"),
    "wikipedia_en": HubDataset(
        "wikimedia/wikipedia", "text", config="20231101.en", splits={"train": "train"}
    ),
}


def load(dataset: HubDataset, split: str, *, streaming: bool = False, cache: Path | None = None) -> Any:
    """Returns an iterable of rows of one official split; this is what may use the network.

    Args:
      dataset: Which one.
      split: "train" or "test".
      streaming: Reads rows as they come, so that a few of them need no complete download.
      cache: Where downloads are kept; None is the library's own folder.

    Raises:
      MissingExtraError: If the library is not installed.
      DatasetSourceError: If it cannot be had.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(
            "public data sets are got by an optional library. Install it with `pip install -e '.[data]'`, "
            "or use the set's files, if you have them: `--from FOLDER`."
        ) from error
    try:
        loaded = datasets.load_dataset(
            dataset.path,
            dataset.config,
            split=dataset.splits[split],
            streaming=streaming,
            cache_dir=None if cache is None else str(cache),
        )
    except Exception as error:  # the library raises its own, pyarrow's, the hub's and the transport's
        raise _not_got(dataset, error) from error
    if dataset.label is not None:  # the files as they are: they are decoded here, as those of a folder
        loaded = loaded.cast_column(dataset.column, datasets.Image(decode=False))
    return loaded


def _not_got(dataset: HubDataset, error: Exception) -> DatasetSourceError:
    lines = str(error).splitlines()
    return DatasetSourceError(
        f"{dataset.path!r} could not be got ({type(error).__name__}: {lines[0] if lines else ''}). Check the "
        "network and repeat the command, or use the set's files, if you have them: `--from FOLDER`."
    )


def _rows(
    dataset: HubDataset, split: str, *, streaming: bool, cache: Path | None
) -> Iterator[dict[str, Any]]:
    rows = iter(load(dataset, split, streaming=streaming, cache=cache))
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # a stream reads as it goes: see `load`
            raise _not_got(dataset, error) from error
        yield row


def hub_images(dataset: HubDataset, request: ImageRequest, cache: Path | None = None) -> Splits:
    """Returns the official splits of an image set; each is got when it is first asked for a chunk."""
    return {split: partial(_chunks, dataset, split, request, cache) for split in dataset.splits}


def hub_texts(dataset: HubDataset, *, streaming: bool, cache: Path | None = None) -> Texts:
    """Returns the official splits of a text; each is got when it is first asked for a document."""
    return {split: partial(_documents, dataset, split, streaming, cache) for split in dataset.splits}


def _chunks(dataset: HubDataset, split: str, request: ImageRequest, cache: Path | None) -> Iterator[Chunk]:
    where, label = f"{dataset.path}, {split}", dataset.label or ""
    rows = _rows(dataset, split, streaming=False, cache=cache)
    yield from decode_all(
        ((encoded_image(row[dataset.column], where), row[label], where) for row in rows), request
    )


def _documents(dataset: HubDataset, split: str, streaming: bool, cache: Path | None) -> Iterator[str]:
    rows = _rows(dataset, split, streaming=streaming, cache=cache)
    return (row[dataset.column] for row in rows if row[dataset.column])
