"""What other processes do in the tests of data sets: importable by name, so that they can be spawned."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from storage.dataset_formats import read_images
from storage.dataset_formats.base import ImageRequest
from storage.datasets import SPLITS, WorkspaceReader
from storage.datasets_preparation import Source, prepare_images
from storage.workspace import Workspace


def _as_it_is(pixels: np.ndarray, side: int) -> np.ndarray:
    del side
    return pixels


def _die_at_write(doing: str, count: int) -> None:
    del count
    if doing == "writing train":
        os._exit(9)


def prepare_and_die(root: Path, files: Path) -> None:
    """Prepares MNIST and ends, without any cleaning up, when the splits are being written."""
    request = ImageRequest(28, 1, 10, _as_it_is)
    source = Source(str(files))
    read = lambda: read_images(files, request)[1]
    prepare_images(Workspace(root), "mnist", request, read, source, (), _die_at_write)


def ask_cache(root: Path, log: Path) -> None:
    """Asks for tokens; notes in `log` if they had to be made."""

    def make() -> dict[str, np.ndarray]:
        with log.open("a") as file:
            file.write("made\n")
        return {split: np.full(5, 5, np.uint16) for split in SPLITS}

    tokens = WorkspaceReader(Workspace(root)).cached("english_subwords", "a", make)
    assert tokens["train"].tolist() == [5] * 5
