"""From the name of a data set to a prepared one: what is known of it, its files, how they become arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lopt.registry import lookup
from storage.dataset_formats import read_images
from storage.dataset_formats.base import ImageRequest, Splits
from storage.dataset_formats.text_files import Texts, read_texts
from storage.datasets_hub import HUB, hub_images, hub_texts
from storage.datasets_preparation import (
    Progress,
    Source,
    prepare_images,
    prepare_subwords,
    prepare_text,
)
from storage.workspace import Workspace
from task_generator.datasets.byte_tokens import documents_of, encode_bytes
from task_generator.datasets.images import DATASETS, EMBEDDED_IMAGES
from task_generator.datasets.public import PUBLIC_IMAGES, PUBLIC_TEXTS, SUBWORD_VOCABULARY
from task_generator.datasets.source import resize_bytes
from task_generator.datasets.subwords import encode_subwords, train_vocabulary
from task_generator.datasets.text import EMBEDDED_TEXTS, TEXTS

BYTES, SUBWORDS = "_bytes", "_32k"
LINE_TEXTS = ("lm1b",)
"""Texts whose documents are lines: shuffled sentences."""


class EmbeddedDatasetError(ValueError):
    """A data set that comes with the packages needs no preparing."""


def prepare(
    workspace: Workspace,
    name: str,
    *,
    folder: Path | None,
    sizes: Sequence[int],
    max_examples: int | None,
    on_progress: Progress,
) -> list[str]:
    """Prepares a public data set, from `folder` or else from the hub; returns what had to be made.

    Raises:
      UnknownNameError: If there is no such data set.
      EmbeddedDatasetError: If it needs no preparing.
      DatasetSourceError: If its files are missing or not as they should be.
    """
    lookup({**DATASETS, **TEXTS}, name, kind="dataset")
    if name in EMBEDDED_IMAGES or name in EMBEDDED_TEXTS:
        raise EmbeddedDatasetError(
            f"{name!r} comes with the packages at any size: there is nothing to prepare."
        )
    workspace.ensure()
    folder = None if folder is None else folder.expanduser().absolute()
    if name in PUBLIC_TEXTS:
        if sizes:
            raise ValueError(f"`--size` is for images; {name!r} is a text. Leave it out.")
        return _prepare_text(workspace, name, folder, max_examples, on_progress)
    source = Source(str(folder) if folder else HUB[name].path, max_examples)
    request = image_request(name)
    read = partial(_image_splits, name, folder, request)
    return prepare_images(workspace, name, request, read, source, sizes, on_progress)


def image_request(name: str) -> ImageRequest:
    """Returns what the images of a public data set are turned into."""
    known = PUBLIC_IMAGES[name]
    return ImageRequest(known.native_size, known.channels, known.num_classes, resize_bytes)


def _image_splits(name: str, folder: Path | None, request: ImageRequest) -> Splits:
    return hub_images(HUB[name], request) if folder is None else read_images(folder, request)[1]


def _prepare_text(
    workspace: Workspace, name: str, folder: Path | None, max_examples: int | None, on_progress: Progress
) -> list[str]:
    stem = name.removesuffix(BYTES).removesuffix(SUBWORDS)
    source = Source(str(folder) if folder else HUB[stem].path, max_examples)
    read = partial(_documents, stem, folder, max_examples)
    made = []
    if prepare_text(workspace, stem + BYTES, read, encode_bytes, source, on_progress):
        made.append(stem + BYTES)
    train: Callable[..., str] = partial(train_vocabulary, vocab_size=SUBWORD_VOCABULARY)
    if name.endswith(SUBWORDS) and prepare_subwords(
        workspace, name, stem + BYTES, documents_of, train, encode_subwords, on_progress
    ):
        made.append(name)
    return made


def _documents(stem: str, folder: Path | None, max_examples: int | None) -> Texts:
    if folder is None:
        return hub_texts(HUB[stem], streaming=max_examples is not None)
    return read_texts(folder, document_per_line=stem in LINE_TEXTS)
