"""Preparing the tiny MNIST of `dataset_files`, and damage to what is stored."""

from __future__ import annotations

import os
from pathlib import Path

from storage import dataset_arrays
from storage.dataset_formats import read_images
from storage.dataset_formats.base import ImageRequest
from storage.datasets_preparation import Source, prepare_images
from storage.workspace import Workspace
from task_generator.datasets.source import resize_bytes

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


def forget_what_was_verified() -> None:
    """As a new process would find things."""
    dataset_arrays._verified.clear()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "flipped": (flip, "checksum mismatch"),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size - 1), "bytes instead of"),
    "missing": (Path.unlink, "is missing"),
}
