"""Looking a name up in a registry, with a helpful answer when it is not there; and the type "any entry of it"."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, Union

from pydantic import Field

T = TypeVar("T")


class UnknownNameError(KeyError):
    """A name that no entry of a registry carries; the message lists the known ones and the nearest."""

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return str(self.args[0])


def unknown_name_message(kind: str, name: str, known: list[str]) -> str:
    """Returns the message that an unknown `name` of a `kind` gets, with the nearest known one."""
    listed = ", ".join(repr(k) for k in sorted(known)) or "none yet"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}; known: {listed}.{hint}"


def lookup(registry: Mapping[str, T], name: str, *, kind: str) -> T:
    """Returns `registry[name]`.

    Args:
      registry: The entries by name.
      name: What the user asked for.
      kind: What an entry is called in messages: "task family", "architecture", …

    Raises:
      UnknownNameError: If there is no such entry; says which there are, and the nearest.
    """
    if name in registry:
        return registry[name]
    raise UnknownNameError(unknown_name_message(kind, name, list(registry)))


def known_names(registry: Mapping[str, Any], names: tuple[str, ...], *, kind: str) -> tuple[str, ...]:
    """Returns `names`, a choice of a registry's entries, as they are.

    Raises:
      ValueError: If there is none, or one stands there twice.
      UnknownNameError: If the registry lacks one.
    """
    if not names or len(set(names)) != len(names):
        raise ValueError(f"every {kind} must be named once, and at least one, got {names}")
    for name in names:
        lookup(registry, name, kind=kind)
    return names


def any_of(registry: Mapping[str, type[Any]], discriminator: str) -> Any:
    """Returns the pydantic type "any entry of `registry`", told apart by the field `discriminator`."""
    members = tuple(registry.values())
    if len(members) == 1:  # pydantic wants two members to discriminate between
        return members[0]
    return Annotated[Union[members], Field(discriminator=discriminator)]  # noqa: UP007 - built at run time
