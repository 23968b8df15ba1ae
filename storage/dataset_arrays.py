"""A folder of large arrays: written row by row, memory-mapped when read, checksummed.

A Zarr group (format 3) whose arrays have one chunk and no compression, so that the chunk's file is the array's
bytes: any Zarr reader can open it, and this one maps the file into memory. As Zarr notices neither a flipped
byte nor a missing chunk, `manifest.json` (see `storage.bundles`) has the size and SHA-256 of every file. They
are checked when a process first opens the folder; from then on it is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from storage.bundles import MANIFEST, DamagedBundleError, Manifest, make_manifest, read_manifest
from storage.files import remove_folder, remove_leftovers, sync_folder, temporary_name, write_file

_BLOCK = 2**22
_verified: dict[Path, str] = {}


class _Column:
    """An array that grows by rows, in its chunk's file."""

    def __init__(self, folder: Path, rows: np.ndarray) -> None:
        folder.mkdir()
        self.dtype = rows.dtype.newbyteorder("<")
        self.row_shape = rows.shape[1:]
        self.count = 0
        self.path = folder / ".".join("0" * rows.ndim)
        self.file: BinaryIO = self.path.open("xb")
        self.sha = hashlib.sha256()

    def append(self, rows: np.ndarray) -> None:
        if rows.shape[1:] != self.row_shape:
            raise ValueError(f"rows must have the shape {self.row_shape}, got {rows.shape[1:]}")
        data = np.ascontiguousarray(rows, self.dtype).data.cast("B") if rows.size else b""
        self.file.write(data)
        self.sha.update(data)
        self.count += rows.shape[0]

    def close(self) -> tuple[int, str]:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        return self.path.stat().st_size, self.sha.hexdigest()


class ArrayFolderWriter:
    """Writes a folder of arrays that appears whole, at `commit`, or not at all.

        with ArrayFolderWriter(target) as writer:
            writer.append("train_images", images)
            writer.commit({"name": "mnist"})

    A folder that is there already is replaced at that moment. Memory in use is that of the rows handed in.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.temporary = target.parent / temporary_name("tmp")
        self._columns: dict[str, _Column] = {}

    def __enter__(self) -> Self:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.target.parent)
        self.temporary.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for column in self._columns.values():
            column.file.close()
        shutil.rmtree(self.temporary, ignore_errors=True)  # not there any more if it was committed

    def append(self, name: str, rows: np.ndarray) -> None:
        """Adds rows to the array `name`; the first ones decide its type and the shape of a row."""
        if name not in self._columns:
            self._columns[name] = _Column(self.temporary / name, rows)
        self._columns[name].append(rows)

    def written(self, name: str) -> np.ndarray:
        """Returns the rows of an array so far, mapped into memory."""
        column = self._columns[name]
        column.file.flush()
        shape = (column.count, *column.row_shape)
        return (
            np.memmap(column.path, column.dtype, "r", shape=shape)
            if column.count
            else np.empty(shape, column.dtype)
        )

    def counts(self) -> dict[str, int]:
        """Returns how many rows each array has so far."""
        return {name: column.count for name, column in self._columns.items()}

    def commit(self, metadata: Mapping[str, Any], extra: Mapping[str, bytes] | None = None) -> Manifest:
        """Makes the folder appear, with `metadata` (strict JSON) in its manifest and `extra` files by name."""
        files = {f"{name}/{column.path.name}": column.close() for name, column in self._columns.items()}
        shapes = {name: (column.count, *column.row_shape) for name, column in self._columns.items()}
        dtypes = {name: column.dtype for name, column in self._columns.items()}
        small = {**_zarr_metadata(shapes, dtypes), **(extra or {})}
        for name, data in small.items():
            write_file(self.temporary / name, data, durable=True)
            files[name] = (len(data), hashlib.sha256(data).hexdigest())
        contents, manifest = make_manifest(files, metadata)
        write_file(self.temporary / MANIFEST, contents, durable=True)
        for name in self._columns:
            sync_folder(self.temporary / name)
        sync_folder(self.temporary)
        if self.target.exists():
            remove_folder(self.target)
        os.rename(self.temporary, self.target)
        sync_folder(self.target.parent)
        _verified.pop(self.target, None)
        return manifest


def _zarr_metadata(
    shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, np.dtype[Any]]
) -> dict[str, bytes]:
    """Returns Zarr's own description of the group and its arrays, by file name."""
    import zarr

    contents: dict[str, Any] = {}
    group = zarr.create_group(zarr.storage.MemoryStore(contents))
    for name, shape in shapes.items():
        group.create_array(
            name,
            shape=shape,
            chunks=tuple(max(1, length) for length in shape),
            dtype=dtypes[name],
            filters=None,
            compressors=None,
            chunk_key_encoding={"name": "v2", "separator": "."},
        )
    return {name: data.to_bytes() for name, data in contents.items()}


def open_arrays(folder: Path) -> tuple[dict[str, np.ndarray], Manifest]:
    """Returns the arrays of a folder by name, mapped into memory and read-only, and its manifest.

    Raises:
      DamagedBundleError: If a file is not as it was written.
    """
    manifest = read_manifest(folder)
    check_sizes(folder, manifest)
    if _verified.get(folder) != manifest.digest:
        check_contents(folder, manifest)
        _verified[folder] = manifest.digest
    names = [path.removesuffix("/zarr.json") for path in manifest.files if path.endswith("/zarr.json")]
    return {name: _map(folder / name, manifest) for name in names}, manifest


def opened_in(place: Path) -> dict[Path, str]:
    """Returns the folders of arrays in `place` that this process has opened, with the digest of what it found."""
    return {folder: digest for folder, digest in _verified.items() if folder.parent == place}


def folder_bytes(folder: Path) -> int:
    """Returns how many bytes the files in `folder` and below take; 0 if there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Checks that every file is there and has its size.

    Raises:
      DamagedBundleError: For the first that hasn't.
    """
    for name, (size, _) in manifest.files.items():
        try:
            found = (folder / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise DamagedBundleError(name, "is missing") from None
        if found != size:
            raise DamagedBundleError(name, f"has {found} bytes instead of {size}")


def check_contents(folder: Path, manifest: Manifest) -> None:
    """Checks the checksum of every file, without holding one in memory.

    Raises:
      DamagedBundleError: For the first file with other bytes.
    """
    for name, (_, expected) in manifest.files.items():
        sha = hashlib.sha256()
        with (folder / name).open("rb") as file:
            while block := file.read(_BLOCK):
                sha.update(block)
        if sha.hexdigest() != expected:
            raise DamagedBundleError(name, "has other bytes than were written (checksum mismatch)")


def _map(folder: Path, manifest: Manifest) -> np.ndarray:
    """Maps the only chunk of the Zarr array in `folder`, after making sure that it is one of ours."""
    about = json.loads((folder / "zarr.json").read_bytes())
    shape, dtype = tuple(about["shape"]), np.dtype(about["data_type"]).newbyteorder("<")
    name = f"{folder.name}/{'.'.join('0' * len(shape))}"
    codecs = [codec["name"] for codec in about["codecs"]]
    size = math.prod(shape) * dtype.itemsize
    if tuple(about["chunk_grid"]["configuration"]["chunk_shape"]) != shape or codecs != ["bytes"]:
        raise DamagedBundleError(f"{folder.name}/zarr.json", "does not describe one uncompressed chunk")
    if name not in manifest.files or manifest.files[name][0] != size:
        raise DamagedBundleError(name, f"must have the {size} bytes of an array of shape {shape}")
    return np.memmap(folder.parent / name, dtype, "r", shape=shape)
