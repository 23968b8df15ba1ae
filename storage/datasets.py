"""Prepared data sets of a workspace: where they are, what there is, and reading them.

    datasets/NAME/native/        images as published, and all else follows from these
    datasets/NAME/SIZE/          the same, resized
    datasets/NAME/tokens/        a text
    datasets/NAME/cache-KEY/     tokens that can be made again at any time

Each is a folder of arrays (`storage.dataset_arrays`): `SPLIT_images` and `SPLIT_labels`, or `SPLIT_tokens`.
Reading maps them into memory. `WorkspaceReader` is how task families, which know no disk, reach them: it is
registered under the entry-point group `task_generator.dataset_readers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from storage.bundles import DamagedBundleError, Manifest, read_manifest
from storage.dataset_arrays import ArrayFolderWriter, open_arrays, opened_in
from storage.errors import DamagedDatasetError, StorageError, explain_os_errors
from storage.files import check_name, locked
from storage.workspace import Workspace

SPLITS = ("train", "inner_valid", "outer_valid", "test")
NATIVE, TOKENS, VOCABULARY = "native", "tokens", "vocabulary.json"
Images = dict[str, tuple[np.ndarray, np.ndarray]]
"""Images, uint8 [n, side, side, channels], and labels, int32 [n], per split."""
Tokens = dict[str, np.ndarray]
"""Token ids, uint16 [n], per split."""


def dataset_folder(workspace: Workspace, name: str, part: str) -> Path:
    """Returns where a part of a data set is or will be."""
    return workspace.datasets / check_name(name, "data set's name") / part


def prepared_parts(workspace: Workspace, name: str) -> dict[str, Manifest]:
    """Returns the manifests of what is prepared of a data set, by part, without reading the data.

    Raises:
      DamagedDatasetError: If a manifest is not as it was written.
    """
    place = dataset_folder(workspace, name, NATIVE).parent
    if not place.is_dir():
        return {}
    parts = (path.name for path in sorted(place.iterdir()) if path.is_dir() and not path.name.startswith("."))
    return {part: manifest_of(workspace, name, part) for part in parts}


def part_names(parts: Iterable[str]) -> list[str]:
    """Returns the parts in words: "native", "16×16", "tokens"."""
    return [
        f"{part}×{part}" if part.isdecimal() else part
        for part in sorted(parts, key=lambda p: (p.isdecimal(), p))
    ]


def manifest_of(workspace: Workspace, name: str, part: str) -> Manifest:
    """Returns the manifest of one part.

    Raises:
      DamagedDatasetError: If it is not as it was written.
    """
    folder = dataset_folder(workspace, name, part)
    try:
        return read_manifest(folder)
    except DamagedBundleError as error:
        raise damaged(name, folder, error) from error


def damaged(name: str, folder: Path, error: DamagedBundleError) -> DamagedDatasetError:
    """Returns the error for prepared data that are not as written, with the command that repairs them."""
    size = f" --size {folder.name}" if folder.name.isdecimal() else ""
    origin = ""
    if not size:
        try:
            origin = read_manifest(folder).metadata.get("origin") or ""
        except (DamagedBundleError, OSError):
            origin = ""
    source = f" --from {origin}" if origin.startswith("/") else ""
    return DamagedDatasetError(
        f"the prepared data set {name!r} in `{folder}` is damaged: {error}. "
        f"Repair it with `keirin data prepare {name}{size}{source}`."
    )


def open_part(workspace: Workspace, name: str, part: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays of one part, verified and mapped into memory; None if it is not prepared.

    Raises:
      DamagedDatasetError: If a file is not as it was written.
    """
    folder = dataset_folder(workspace, name, part)
    if not folder.is_dir():
        return None
    try:
        return open_arrays(folder)[0]
    except DamagedBundleError as error:
        raise damaged(name, folder, error) from error


class WorkspaceReader:
    """Reads the prepared data sets of a workspace."""

    def __init__(self, workspace: Workspace | None = None) -> None:
        """Names the workspace; None takes `$KEIRIN_HOME`, or `.keirin` in the current folder."""
        self.workspace = workspace or Workspace()

    def read_images(self, name: str, image_size: int) -> Images | None:
        """Returns the splits at `image_size` if prepared at that size, else at the native one, else None.

        Raises:
          DamagedDatasetError: If a file is not as it was written.
        """
        arrays = open_part(self.workspace, name, str(image_size))
        if arrays is None:
            arrays = open_part(self.workspace, name, NATIVE)
        if arrays is None:
            return None
        return {split: (arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in SPLITS}

    def read_tokens(self, name: str) -> Tokens | None:
        """Returns the splits of a text, or None.

        Raises:
          DamagedDatasetError: If a file is not as it was written.
        """
        arrays = open_part(self.workspace, name, TOKENS)
        return None if arrays is None else {split: arrays[f"{split}_tokens"] for split in SPLITS}

    def count(self, name: str) -> int | None:
        """Returns how many images or tokens there are over all splits, or None."""
        for part in (NATIVE, TOKENS):
            if dataset_folder(self.workspace, name, part).is_dir():
                return sum(manifest_of(self.workspace, name, part).metadata["counts"].values())
        return None

    def version(self, name: str) -> str | None:
        """Returns what tells the data of a set from others of its name, None if it isn't prepared; reads no data.

        It is a checksum that the manifest has. All sizes of images follow from the native ones, and have theirs.

        Raises:
          DamagedDatasetError: If the manifest is not as it was written.
        """
        for part in (NATIVE, TOKENS):
            if dataset_folder(self.workspace, name, part).is_dir():
                return manifest_of(self.workspace, name, part).digest[:16]
        return None

    def holds_earlier(self, name: str) -> bool:
        """Whether this process opened data of this set that have been prepared again since, and may still hold."""
        opened = opened_in(dataset_folder(self.workspace, name, NATIVE).parent)
        return any(
            not folder.is_dir() or manifest_of(self.workspace, name, folder.name).digest != digest
            for folder, digest in opened.items()
            if not folder.name.startswith("cache-")  # made again from the same text
        )

    def vocabulary(self, name: str) -> str | None:
        """Returns the vocabulary of a text in sub-words, as it was prepared, or None."""
        folder = dataset_folder(self.workspace, name, TOKENS)
        return (folder / VOCABULARY).read_text() if (folder / VOCABULARY).is_file() else None

    def cached(self, name: str, key: str, make: Callable[[], Tokens]) -> Tokens:
        """Returns what `make` returns, from disk if it is there.

        It is kept only where a workspace exists: looking at data creates none. Two processes at once are safe:
        one makes it, the other waits and reads. What is damaged is made again; what cannot be written is made
        and not kept.
        """
        if not self.workspace.root.is_dir():
            return make()
        folder = dataset_folder(self.workspace, name, f"cache-{check_name(key, 'key')}")
        try:
            return _tokens(folder)
        except (DamagedBundleError, OSError):
            pass
        try:
            with explain_os_errors(folder, "keep data"), locked(folder.parent / ".lock"):
                return self._make_and_keep(folder, name, make)
        except StorageError:
            return make()

    def _make_and_keep(self, folder: Path, name: str, make: Callable[[], Tokens]) -> Tokens:
        try:
            return _tokens(folder)  # made by another process while this one waited
        except DamagedBundleError:
            write_tokens(folder, make(), {"name": name})
            return _tokens(folder)


def _tokens(folder: Path) -> Tokens:
    arrays = open_arrays(folder)[0]
    return {split: arrays[f"{split}_tokens"] for split in SPLITS}


def write_tokens(folder: Path, splits: Mapping[str, np.ndarray], metadata: Mapping[str, object]) -> None:
    """Writes a text that is in memory."""
    with ArrayFolderWriter(folder) as writer:
        for split, tokens in splits.items():
            writer.append(f"{split}_tokens", tokens)
        writer.commit({**metadata, "counts": {split: len(tokens) for split, tokens in splits.items()}})
