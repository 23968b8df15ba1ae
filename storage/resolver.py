"""From what a user names — an alias, a `models:/` URI, a folder — to the weights of a learned optimizer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from storage.bundles import DamagedBundleError
from storage.checkpoint_reading import Checkpoint, load_checkpoint, locate, verify
from storage.errors import AliasNotFoundError, CorruptCheckpointError, StorageError
from storage.model_registry import PREVIOUS_CHAMPION
from storage.pytrees import FlatTree
from storage.registry_reading import checkpoint_folder, parse_reference, read_aliases
from storage.workspace import Workspace

THETA = "theta"
ARCHITECTURE = "architecture"


def resolve_theta(ref: str, workspace: Workspace | None = None) -> tuple[dict[str, Any], FlatTree]:
    """Returns the architecture's configuration (JSON) and the weights by path, fully verified.

    Args:
      ref: An alias (`champion`), a URI (`models:/NAME@ALIAS`, `models:/NAME/VERSION`), or a checkpoint's
        folder.
      workspace: Whose registry to ask; None takes `$KEIRIN_HOME`, or `.keirin` in the current folder.

    Raises:
      AliasNotFoundError: If there is no such alias or version.
      CheckpointNotFoundError: If there is no such folder.
      CorruptCheckpointError: If the bytes are not those that were written; names what to use instead.
    """
    checkpoint = resolve_checkpoint(ref, workspace)
    try:
        return checkpoint.metadata[ARCHITECTURE], checkpoint.trees[THETA]
    except KeyError as error:
        where = f"{checkpoint.info} (`{checkpoint.info.path}`)"
        raise StorageError(
            f"{where} holds no learned optimizer: it has no {error.args[0]!r}. Name one that `keirin train` made: "
            "`keirin status` lists them."
        ) from error


def resolve_checkpoint(ref: str | os.PathLike[str], workspace: Workspace | None = None) -> Checkpoint:
    """Returns the whole checkpoint behind `ref`; see `resolve_theta`."""
    if not _is_name(ref):
        return load_checkpoint(Path(ref))
    workspace = workspace or Workspace()
    text = os.fspath(ref)
    try:
        return load_checkpoint(checkpoint_folder(workspace, text))
    except CorruptCheckpointError as error:
        raise CorruptCheckpointError(f"{text!r}: {error}{_alternative(workspace, text)}") from error


def _is_name(ref: str | os.PathLike[str]) -> bool:
    """Whether `ref` is for the registry: a URI, or a bare word that is no folder here."""
    if not isinstance(ref, str):
        return False
    if ref.startswith("models:"):
        return True
    looks_like_path = os.sep in ref or ref.startswith(("~", "."))
    return not looks_like_path and not Path(ref).is_dir()


def _alternative(workspace: Workspace, ref: str) -> str:
    """Returns the advice to use another alias, if one points at an undamaged version."""
    reference = parse_reference(ref)
    aliases = read_aliases(workspace, reference.name)
    for alias in sorted(aliases, key=lambda alias: (alias != PREVIOUS_CHAMPION, -aliases[alias], alias)):
        uri = f"models:/{reference.name}@{alias}"
        try:
            if alias != reference.alias:
                verify(locate(checkpoint_folder(workspace, uri)))
                return f" The alias {alias!r} is good: use {uri!r}."
        except (AliasNotFoundError, DamagedBundleError, StorageError, OSError):
            continue
    return ""
