"""Data sets that were prepared on disk: this package asks for them by name and does no I/O itself.

Whoever can read prepared data registers under the entry-point group `task_generator.dataset_readers`; keirin's own
distribution registers `storage.datasets`. Tests, and commands that name a workspace, hand in a reader with
`use_reader`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from task_generator.datasets.source import Arrays, resize_bytes

GROUP = "task_generator.dataset_readers"


class DatasetNotPreparedError(FileNotFoundError):
    """A data set that is known but not on this machine; the message has the command that gets it."""


TokenArrays = dict[str, np.ndarray]
"""Token ids [n] per split."""


class DatasetReader(Protocol):
    """Reads prepared data sets; the `read_` methods return None where the set is not prepared."""

    def read_images(self, name: str, image_size: int) -> dict[str, Arrays] | None:
        """Returns, per split, images uint8 [n, side, side, channels] and labels [n]; may be memory-mapped.

        They have the side `image_size` where they were prepared at that size, else the native one.
        """
        ...

    def read_tokens(self, name: str) -> TokenArrays | None:
        """Returns, per split, token ids [n]; may be memory-mapped."""
        ...

    def count(self, name: str) -> int | None:
        """Returns how many images or tokens the splits of a prepared set have together, without reading them."""
        ...

    def cached(self, name: str, key: str, make: Callable[[], TokenArrays]) -> TokenArrays:
        """Returns what `make` returns; kept from an earlier call with this name and key where that is possible."""
        ...


_given: list[DatasetReader] = []


@contextlib.contextmanager
def use_reader(reader: DatasetReader) -> Iterator[None]:
    """Asks `reader` instead of the registered ones, inside the block."""
    _given.append(reader)
    try:
        yield
    finally:
        _given.pop()


def readers() -> list[DatasetReader]:
    """Returns whom to ask, in order."""
    if _given:
        return [_given[-1]]
    return [entry.load()() for entry in importlib.metadata.entry_points(group=GROUP)]


def read_prepared_images(name: str, image_size: int) -> dict[str, Arrays]:
    """Returns the splits of a prepared image set at `image_size`; resized here if it isn't prepared at that size.

    Raises:
      DatasetNotPreparedError: If it isn't prepared at all.
    """
    for reader in readers():
        found = reader.read_images(name, image_size)
        if found is not None:
            return {
                split: (resize_bytes(images, image_size), labels) for split, (images, labels) in found.items()
            }
    raise not_prepared(name)


def read_prepared_tokens(name: str) -> TokenArrays:
    """Returns the splits of a prepared text.

    Raises:
      DatasetNotPreparedError: If it isn't prepared.
    """
    for reader in readers():
        found = reader.read_tokens(name)
        if found is not None:
            return found
    raise not_prepared(name)


def prepared_count(name: str, otherwise: int) -> int:
    """Returns how many images or tokens of a set are prepared (perhaps not all there are), or `otherwise`."""
    counts = (reader.count(name) for reader in readers())
    return next((count for count in counts if count is not None), otherwise)


def cached_tokens(name: str, key: str, make: Callable[[], TokenArrays]) -> TokenArrays:
    """Returns what `make` returns, from a reader's cache if there is a reader."""
    for reader in readers():
        return reader.cached(name, key, make)
    return make()


def not_prepared(name: str) -> DatasetNotPreparedError:
    """Returns the error for a known data set that is not on this machine."""
    return DatasetNotPreparedError(
        f"dataset {name!r} is not prepared on this machine. Run `keirin data prepare {name}` (needs the network "
        f"and `pip install -e '.[data]'`), or `keirin data prepare {name} --from FOLDER` with the files at hand. "
        "Embedded data sets need neither: `keirin data list` shows which there are."
    )
