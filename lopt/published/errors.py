"""What goes wrong with a published file, as opposed to with an argument."""

from __future__ import annotations

from collections.abc import Iterable

MAX_LISTED = 50
"""Problems of one kind that a message lists: more than a file has arrays that is only named wrongly."""
MAX_NAME_LENGTH = 100


class PublishedFileError(ValueError):
    """A file that is damaged, or does not hold what was asked for. The message names it, and every problem."""


def shown(name: str) -> str:
    """Returns a name out of a file as it may be printed: without control characters, and not at any length."""
    text = name.encode("unicode_escape").decode("ascii")
    return text if len(text) <= MAX_NAME_LENGTH else f"{text[:MAX_NAME_LENGTH]}…"


def listed(problems: Iterable[str]) -> str:
    """Returns problems as the lines of a message."""
    lines = list(problems)
    more = [f"and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
    return "".join(f"\n  {line}" for line in lines[:MAX_LISTED] + more)
