"""What can go wrong with stored data.

Each error also inherits the built-in a caller would expect, so `except FileNotFoundError` keeps working:

    StorageError
    ├── CheckpointNotFoundError    (FileNotFoundError)   no such checkpoint
    ├── CheckpointExistsError      (FileExistsError)     another checkpoint has that phase and step
    ├── CorruptCheckpointError     (ValueError)          the bytes are not those that were written
    ├── TreeMismatchError          (ValueError)          the arrays do not fit the structure asked for
    ├── FingerprintMismatchError   (ValueError)          made by another configuration
    ├── AliasNotFoundError         (LookupError)         no such alias or version in the model registry
    ├── AliasMovedError            (RuntimeError)        an alias is not where it was when something was decided
    ├── DamagedDatasetError        (ValueError)          prepared data are not those that were written
    ├── DatasetSourceError         (ValueError)          files to prepare a data set from are not as they should be
    ├── StorageFullError           (OSError)             no space left
    ├── ReadOnlyStorageError       (PermissionError)     not writable
    └── UnsafePathError            (ValueError)          a name or path that must not be used
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class StorageError(Exception):
    """Base of everything this package raises on purpose."""

    def __str__(self) -> str:  # OSError and KeyError would decorate the message
        return str(self.args[0]) if self.args else type(self).__name__


class CheckpointNotFoundError(StorageError, FileNotFoundError):
    """There is no such checkpoint."""


class CheckpointExistsError(StorageError, FileExistsError):
    """A good checkpoint with other contents already has that phase and step; it is never overwritten."""


class CorruptCheckpointError(StorageError, ValueError):
    """Stored bytes differ from those that were written: flipped, truncated, missing or foreign."""


class TreeMismatchError(StorageError, ValueError):
    """Stored arrays do not fit the tree they are to be restored into."""


class FingerprintMismatchError(StorageError, ValueError):
    """A checkpoint belongs to another configuration than the one that wants to continue from it."""


class AliasNotFoundError(StorageError, LookupError):
    """The model registry has no such alias or version."""


class AliasMovedError(StorageError, RuntimeError):
    """An alias was moved by somebody else between a decision and its execution."""


class DamagedDatasetError(StorageError, ValueError):
    """A prepared data set differs from what was written; the message has the command that repairs it."""


class DatasetSourceError(StorageError, ValueError):
    """What a data set is to be prepared from is missing, of another kind, or malformed."""


class StorageFullError(StorageError, OSError):
    """No space (or quota) left."""


class ReadOnlyStorageError(StorageError, PermissionError):
    """A folder cannot be written."""


class UnsafePathError(StorageError, ValueError):
    """A path or name that could reach outside its folder, or that cannot be a path at all."""


_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def explain_os_errors(path: Path, doing: str) -> Iterator[None]:
    """Turns a full disk or a read-only folder into one clear error that names `path` and the way out.

    Args:
      path: The folder or file being written.
      doing: What was being attempted, to follow "cannot": "save checkpoint 'short' step 3".
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(
                f"cannot {doing}: no space left on the disk of `{path}`. "
                "Free some space, or point KEIRIN_HOME elsewhere."
            ) from error
        if error.errno in _NOT_WRITABLE:
            raise ReadOnlyStorageError(
                f"cannot {doing}: `{path}` is not accessible ({error.strerror}). "
                "Change its permissions, or set KEIRIN_HOME to a folder you may write."
            ) from error
        raise StorageError(f"cannot {doing}: `{path}`: {error.strerror or error}.") from error


def known_names(name: str, known: Iterable[str]) -> str:
    """Returns "known: 'a', 'b'. Did you mean 'a'?" for the end of a message about an unknown name."""
    names = sorted(set(known))
    listed = ", ".join(repr(k) for k in names) or "none yet"
    near = difflib.get_close_matches(name, names, n=1)
    return f"known: {listed}." + (f" Did you mean {near[0]!r}?" if near else "")
