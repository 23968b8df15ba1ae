"""The record of promotions and rollbacks: appended to, never changed, and whole whenever it is looked at.

    <root>/promotions/lock            held while the champion is decided on and moved
    <root>/promotions/pending.json    what is being done right now
    <root>/promotions/00000007.json   what was done, numbered from 1

What is about to be done is written down first; then the alias is moved; then the note becomes the next entry,
by a rename. Whatever kills the process in between, the next one to hold the lock finds the note and carries it
out (moving an alias twice is moving it once), so neither a move without an entry nor an entry without a move is
left behind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from storage.errors import StorageError, explain_os_errors
from storage.files import locked, read_json, sync_folder, write_json
from storage.workspace import Workspace

_ENTRY = re.compile(r"\d{8}\.json")


class PromotionLog:
    """The promotions of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        """Names the log; nothing is created before the first entry."""
        self.folder = workspace.root / "promotions"
        self._pending = self.folder / "pending.json"

    @contextmanager
    def exclusive(self, carry_out: Callable[[dict[str, Any]], None]) -> Iterator[None]:
        """Holds the log against every other process of this machine, once what one left half-done is finished.

        Args:
          carry_out: Moves the alias as an entry says; called with the entry of a process that was killed.
        """
        with explain_os_errors(self.folder, "lock the record of promotions"):
            self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "lock"):
            unfinished = self.pending()
            if unfinished is not None:
                self._carry_out(unfinished, carry_out)
            yield

    def append(self, entry: Mapping[str, Any], carry_out: Callable[[dict[str, Any]], None]) -> int:
        """Writes down what is going to be done, does it, and makes it an entry. Returns the entry's number.

        Call it while holding the log (`exclusive`).

        Args:
          entry: Strict JSON.
          carry_out: Does what the entry says; doing it twice must be doing it once.
        """
        with explain_os_errors(self.folder, "record a promotion"):
            write_json(self._pending, dict(entry))
        return self._carry_out(dict(entry), carry_out)

    def _carry_out(self, entry: dict[str, Any], carry_out: Callable[[dict[str, Any]], None]) -> int:
        try:
            carry_out(entry)
        except Exception:  # it could not be done: there is nothing to record, or to carry out later
            self._pending.unlink(missing_ok=True)
            raise
        number = len(self.entries()) + 1
        with explain_os_errors(self.folder, "record a promotion"):
            os.rename(self._pending, self.folder / f"{number:08d}.json")
            sync_folder(self.folder)
        return number

    def pending(self) -> dict[str, Any] | None:
        """Returns what is being done at this moment, or was when its process was killed; usually None."""
        found = read_json(self._pending)
        return found if isinstance(found, dict) else None

    def entries(self) -> list[dict[str, Any]]:
        """Returns every entry, the oldest first.

        Raises:
          StorageError: If one is damaged or missing.
        """
        if not self.folder.is_dir():
            return []
        names = sorted(path.name for path in self.folder.iterdir() if _ENTRY.fullmatch(path.name))
        if names != [f"{number + 1:08d}.json" for number in range(len(names))]:
            raise StorageError(
                f"the record of promotions in `{self.folder}` is not whole: it has {', '.join(names)}. "
                "Restore what is missing, or move the folder away."
            )
        return [self._read(name) for name in names]

    def _read(self, name: str) -> dict[str, Any]:
        found = read_json(self.folder / name)
        if not isinstance(found, dict):
            raise StorageError(
                f"`{self.folder / name}` is not an entry of the record of promotions. Restore it, "
                "or move the folder away."
            )
        return found
