"""A folder of arrays with a manifest: written whole or not at all, verified before a byte of it is parsed.

Zarr alone does not notice a flipped byte, and reads a missing chunk as zeros. So `manifest.json` records the
size and SHA-256 of every file, and of itself, and reading checks all of them on the very bytes it then uses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from storage.files import write_folder
from storage.packing import Arrays, pack, unpack

MANIFEST = "manifest.json"
_FORMAT = "keirin-bundle-1"
_MAX_MANIFEST_BYTES = 64 * 2**20


class DamagedBundleError(ValueError):
    """What is wrong with a bundle; `file` is the file it is wrong with."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"`{file}` {problem}")
        self.file = file
        self.problem = problem


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    Attributes:
      metadata: The JSON that was stored with the arrays.
      files: Size and SHA-256 by relative path.
      digest: SHA-256 over the files' checksums: equal for equal arrays, whatever the metadata.
    """

    metadata: dict[str, Any]
    files: dict[str, tuple[int, str]]
    digest: str

    @property
    def num_bytes(self) -> int:
        return sum(size for size, _ in self.files.values())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _digest(files: Mapping[str, tuple[int, str]]) -> str:
    return _sha256(_canonical({name: sha for name, (_, sha) in files.items()}))


def prepare(arrays: Arrays, metadata: Mapping[str, Any]) -> tuple[dict[str, bytes], Manifest]:
    """Returns the files of a bundle, its manifest among them, and the manifest as a value.

    Raises:
      ValueError, TypeError: If `metadata` is not strict JSON (a NaN, an array, an object).
    """
    contents = pack(arrays)
    files = {name: (len(data), _sha256(data)) for name, data in contents.items()}
    contents[MANIFEST], manifest = make_manifest(files, metadata)
    return contents, manifest


def make_manifest(
    files: Mapping[str, tuple[int, str]], metadata: Mapping[str, Any]
) -> tuple[bytes, Manifest]:
    """Returns the contents of `manifest.json` for files of these sizes and checksums, and the manifest as a value.

    Raises:
      ValueError, TypeError: If `metadata` is not strict JSON (a NaN, an array, an object).
    """
    body = {"format": _FORMAT, "metadata": dict(metadata), "files": {k: list(v) for k, v in files.items()}}
    try:
        record = {"manifest": body, "sha256": _sha256(_canonical(body))}
    except (TypeError, ValueError) as error:
        raise type(error)(f"metadata must be strict JSON (text, finite numbers, lists): {error}") from error
    data = json.dumps(record, indent=1, sort_keys=True).encode()
    return data, Manifest(json.loads(_canonical(body["metadata"])), dict(files), _digest(files))


def write_bundle(
    folder: Path, arrays: Arrays, metadata: Mapping[str, Any], *, durable: bool = True
) -> Manifest:
    """Writes a new bundle atomically (see `storage.files.write_folder`) and returns its manifest."""
    contents, manifest = prepare(arrays, metadata)
    write_folder(folder, contents, durable=durable)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Returns a bundle's manifest, verified against its own checksum but not against the other files.

    Raises:
      DamagedBundleError: If it is missing or not as written.
    """
    try:
        path = folder / MANIFEST
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise DamagedBundleError(MANIFEST, "is implausibly large")
        record = json.loads(path.read_bytes())
        body, expected = record["manifest"], record["sha256"]
    except OSError as error:
        raise _unreadable(MANIFEST, error) from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, DamagedBundleError):
            raise
        raise DamagedBundleError(MANIFEST, "cannot be parsed") from error
    if not isinstance(body, dict) or body.get("format") != _FORMAT:
        raise DamagedBundleError(MANIFEST, f"is not in the format {_FORMAT!r}")
    if _sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()) != expected:
        raise DamagedBundleError(MANIFEST, "does not match its own checksum")
    files = {_safe(name): (int(size), str(sha)) for name, (size, sha) in body["files"].items()}
    return Manifest(body["metadata"], files, _digest(files))


def _safe(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        raise DamagedBundleError(MANIFEST, f"names a file outside the folder: {name!r}")
    return name


def read_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Returns the contents of all files of a bundle, each checked against the manifest.

    Raises:
      DamagedBundleError: For the first file that is missing, of another size, or with other bytes.
    """
    contents = {}
    for name, (size, sha) in manifest.files.items():
        path = folder / name
        try:
            found = path.stat().st_size
            if found != size:
                raise DamagedBundleError(name, f"has {found} bytes instead of {size}")
            contents[name] = path.read_bytes()
        except OSError as error:
            raise _unreadable(name, error) from error
        if _sha256(contents[name]) != sha:
            raise DamagedBundleError(name, "has other bytes than were written (checksum mismatch)")
    return contents


def _unreadable(name: str, error: OSError) -> Exception:
    """Returns damage, unless it is only that we may not read: then `error` itself."""
    if isinstance(error, PermissionError):
        return error
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return DamagedBundleError(name, "is missing")
    return DamagedBundleError(name, f"cannot be read ({error.strerror})")


def read_bundle(folder: Path) -> tuple[dict[str, dict[str, Any]], Manifest]:
    """Returns the arrays (by tree and path) and the manifest of a bundle, fully verified.

    Raises:
      DamagedBundleError: If any file is not as written.
    """
    manifest = read_manifest(folder)
    try:
        return unpack(read_files(folder, manifest)), manifest
    except DamagedBundleError:
        raise
    except Exception as error:  # foreign contents under valid checksums: whatever Zarr makes of them
        raise DamagedBundleError("zarr.json", f"cannot be read as arrays ({error})") from error
