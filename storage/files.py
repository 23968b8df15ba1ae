"""Writing files so that a crash leaves the old or the new one, and checking names that become paths."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.errors import StorageError, UnsafePathError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TEMPORARY = re.compile(r"\.(tmp|trash)-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}")


def check_name(name: str, kind: str) -> str:
    """Returns `name` if it is safe as one path component.

    Raises:
      UnsafePathError: If it has characters other than letters, digits, `.`, `_`, `-`, or starts with one.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UnsafePathError(
            f"a {kind} must be 1 to 100 letters, digits, '.', '_' or '-', "
            f"starting with a letter or a digit; got {name!r}."
        )
    return name


def check_path(path: str | os.PathLike[str], what: str) -> Path:
    """Returns `path` absolute, with `~` expanded.

    Raises:
      UnsafePathError: If it is empty, has a NUL character, or is a URL (only local folders are supported).
    """
    text = os.fspath(path)
    if not text.strip() or "\0" in text:
        raise UnsafePathError(f"{what} must be a path, got {text!r}.")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text) or text.startswith("models:"):
        raise UnsafePathError(f"{what} must be a local path, got the address {text!r}.")
    return Path(text).expanduser().absolute()


def temporary_name(kind: str) -> str:
    """Returns a name for a folder being written (`tmp`) or removed (`trash`), tied to this process."""
    return f".{kind}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def remove_leftovers(folder: Path) -> None:
    """Removes what processes of this machine that no longer run left half-written in `folder`."""
    for entry in folder.glob(".t*-*"):
        match = _TEMPORARY.fullmatch(entry.name)
        if match and match["host"] == socket.gethostname() and not is_running(int(match["pid"])):
            shutil.rmtree(entry, ignore_errors=True)


def is_running(pid: int) -> bool:
    """Whether a process of this machine has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path` against other processes of this machine (and other threads)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Makes the entries of `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes | memoryview, *, durable: bool) -> None:
    """Writes a new file; `durable` waits until the disk has it."""
    with path.open("xb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def write_folder(target: Path, files: Mapping[str, bytes | memoryview], *, durable: bool = True) -> None:
    """Writes a folder of files that appears whole or not at all.

    The files are written beside `target`, then renamed into place; whatever fails on the way, `target` is as
    before and nothing is left behind.

    Args:
      target: The folder to create; must not exist (its parent is created).
      files: Contents by relative path with forward slashes.
      durable: Whether to wait for the disk (survives a power cut, not only a killed process).

    Raises:
      FileExistsError: If `target` exists.
    """
    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    temporary = parent / temporary_name("tmp")
    if target.exists():
        raise FileExistsError(f"`{target}` exists")
    try:
        folders = {temporary / name for name in files for name in _parents(name)}
        temporary.mkdir()
        for folder in sorted(folders - {temporary}):
            folder.mkdir()
        for name, data in files.items():
            write_file(temporary / name, data, durable=durable)
        if durable:
            for folder in folders:
                sync_folder(folder)
        os.rename(temporary, target)  # fails if the target has meanwhile appeared: it is not empty
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if durable:
        sync_folder(parent)


def _parents(name: str) -> list[str]:
    return [str(parent) for parent in Path(name).parents]


def remove_folder(folder: Path) -> None:
    """Removes a folder; killed half-way, it is either still whole or gone from sight."""
    trash = folder.parent / temporary_name("trash")
    os.rename(folder, trash)
    shutil.rmtree(trash, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Replaces a small JSON file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()
    replace_file(path, data, durable=True)


def replace_file(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Replaces a file atomically: whoever reads it sees the old or the new one, whole."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write_file(temporary, data, durable=durable)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """Returns the contents of a JSON file, or None if there is no such file.

    Raises:
      StorageError: If it is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StorageError(f"`{path}` is not valid JSON ({error}). Remove it to start afresh.") from error
