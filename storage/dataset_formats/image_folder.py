"""Folders of image files, one folder per class: `train/CLASS/*.png` and `test/CLASS/*.png`, or `CLASS/*.png`.

Classes are the folders in alphabetical order; folders that are all called by numbers are those classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from storage.dataset_formats.base import Chunk, ImageRequest, Splits, decode_all
from storage.errors import DatasetSourceError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm"})
_NAMES = {"train": ("train", "training"), "test": ("test", "val", "validation", "valid")}


def read(folder: Path, request: ImageRequest) -> Splits | None:
    """Returns the splits of a folder of classes, or of one such folder per split."""
    found = {split: _first(folder, names) for split, names in _NAMES.items()}
    places = {split: place for split, place in found.items() if place is not None and _classes(place)}
    if "train" not in places:
        if not _classes(folder):
            return None
        places = {"train": folder}
    labels = class_labels(places["train"], request.num_classes)
    if "test" in places and class_labels(places["test"], request.num_classes).keys() - labels.keys():
        raise DatasetSourceError(f"`{places['test']}` has classes that `{places['train']}` has not.")
    return {split: partial(_chunks, place, labels, request) for split, place in places.items()}


def class_labels(place: Path, num_classes: int) -> dict[str, int]:
    """Returns the label of each folder in `place`.

    Raises:
      DatasetSourceError: If there are not as many as the data set has classes, so that labels would be guessed.
    """
    names = sorted(path.name for path in _classes(place))
    if all(name.isdecimal() for name in names):
        return {name: int(name) for name in names}
    if len(names) != num_classes:
        raise DatasetSourceError(
            f"`{place}` must have {num_classes} folders, one per class, got {len(names)}. If some classes are left "
            f"out on purpose, name the folders by their numbers, 0 to {num_classes - 1}."
        )
    return {name: label for label, name in enumerate(names)}


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _classes(place: Path) -> list[Path]:
    """Returns the folders in `place` that have images."""
    return [path for path in place.iterdir() if path.is_dir() and next(_images(path), None) is not None]


def _images(place: Path) -> Iterator[Path]:
    return (path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _chunks(place: Path, labels: dict[str, int], request: ImageRequest) -> Iterator[Chunk]:
    rows = (
        (path, label, path)
        for name, label in labels.items()
        if (place / name).is_dir()
        for path in sorted(_images(place / name))
    )
    return decode_all(rows, request)
