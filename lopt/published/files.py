"""Reading and writing one file whole."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

from lopt.published.errors import PublishedFileError

MAX_FILE_BYTES = 2**31
"""Of a file that is read; the largest published one has 11 MB."""


def check_path(path: str | os.PathLike[str]) -> Path:
    """Returns `path` with `~` expanded and links followed.

    Raises:
      ValueError: If it is empty, has a NUL character, or is an address.
    """
    text = os.fspath(path)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError(f"`path` must name a local file, got {text!r}")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise ValueError(f"`path` must name a local file, got the address {text!r}; download it first")
    return Path(os.path.realpath(Path(text).expanduser()))


def read_file(path: Path) -> bytes:
    """Returns a file's contents.

    Raises:
      OSError: If it can't be read.
      PublishedFileError: If it is no ordinary file, or far larger than any published one.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"`path` must name a file, but `{path}` is a folder; name the file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise PublishedFileError(f"`{path}` is no ordinary file")
    if status.st_size > MAX_FILE_BYTES:
        raise PublishedFileError(
            f"`{path}` has {status.st_size} bytes; a published file has at most {MAX_FILE_BYTES}"
        )
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES)


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file that appears whole or not at all: whatever fails on the way, `path` is as before.

    Raises:
      OSError: If it can't be written; nothing is left behind.
    """
    if path.is_dir():
        raise IsADirectoryError(f"`path` must name a file, but `{path}` is a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder `{path.parent}` to write `{path.name}` in; create it first"
        )
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes the new name durable, where the system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
