"""Finding and reading checkpoints: verified first, and with the last good one offered when one is damaged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.bundles import MANIFEST, DamagedBundleError, Manifest, read_bundle, read_files, read_manifest
from storage.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    FingerprintMismatchError,
    explain_os_errors,
    known_names,
)
from storage.files import check_path
from storage.pytrees import PyTree, restore

_STEP_FOLDER = re.compile(r"step-(\d{10,18})")


@dataclass(frozen=True, order=True)
class CheckpointInfo:
    """Which checkpoint, and where. Cheap: nothing of it has been read or verified."""

    phase: str
    outer_step: int
    path: Path

    def __str__(self) -> str:
        return f"checkpoint {self.phase!r} step {self.outer_step}"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes:
      info: Which one.
      trees: By name: a flat dictionary of arrays, or the restored tree where a template was given.
      metadata: The JSON that was saved with it.
      digest: SHA-256 of the arrays: two runs that agree bit for bit have the same.
      created: When it was written (ISO 8601, UTC).
    """

    info: CheckpointInfo
    trees: dict[str, Any]
    metadata: dict[str, Any]
    digest: str
    created: str


def list_phase(folder: Path) -> list[CheckpointInfo]:
    """Returns the checkpoints in a phase's folder, oldest step first; nothing is verified."""
    if not folder.is_dir():
        return []
    found = ((_STEP_FOLDER.fullmatch(entry.name), entry) for entry in folder.iterdir())
    return sorted(CheckpointInfo(folder.name, int(match[1]), entry) for match, entry in found if match)


def locate(path: Path | str) -> CheckpointInfo:
    """Returns the checkpoint that a folder is.

    Raises:
      CheckpointNotFoundError: If there is no such folder, or it is something else; lists what is near it.
    """
    folder = check_path(path, "a checkpoint")
    match = _STEP_FOLDER.fullmatch(folder.name)
    if folder.is_dir() and (match or (folder / MANIFEST).exists()):
        return CheckpointInfo(folder.parent.name, int(match[1]) if match else -1, folder)
    if inside := list_phase(folder):
        last = inside[-1].path
        raise CheckpointNotFoundError(f"`{folder}` holds a phase's checkpoints; name one of them: `{last}`.")
    if folder.exists():
        raise CheckpointNotFoundError(
            f"`{folder}` is not a checkpoint: it has no {MANIFEST}. `keirin status` lists those there are."
        )
    near = [info.path.name for info in list_phase(folder.parent)]
    beside = f"in that folder, {known_names(folder.name, near)}" if near else "nor beside it."
    raise CheckpointNotFoundError(f"there is no checkpoint at `{folder}`; {beside}")


def verify(info: CheckpointInfo) -> Manifest:
    """Checks every byte of a checkpoint without parsing the arrays, and returns its manifest.

    Raises:
      DamagedBundleError: If a file is not as written.
    """
    manifest = read_manifest(info.path)
    read_files(info.path, manifest)
    return manifest


def previous_good(info: CheckpointInfo) -> CheckpointInfo | None:
    """Returns the undamaged checkpoint of the same phase nearest before `info`, else the first after it."""
    others = [other for other in list_phase(info.path.parent) if other.path != info.path]
    older = [other for other in others if other.outer_step < info.outer_step]
    newer = [other for other in others if other.outer_step > info.outer_step]
    for other in (*reversed(older), *newer):
        try:
            verify(other)
        except (DamagedBundleError, OSError):
            continue
        return other
    return None


def corrupt(info: CheckpointInfo, damage: DamagedBundleError) -> CorruptCheckpointError:
    """Returns the error for a damaged checkpoint: which file, what is wrong, and which one to use instead."""
    good = previous_good(info)
    remedy = "There is no good one beside it."
    if good:
        remedy = (
            f"The last good one is step {good.outer_step}: use `{good.path}`, "
            "or remove the damaged folder to continue from it."
        )
    return CorruptCheckpointError(f"{info} is damaged: {damage} (in `{info.path}`). {remedy}")


def load_checkpoint(
    ref: CheckpointInfo | Path | str,
    *,
    templates: Mapping[str, PyTree] | None = None,
    fingerprint: str | None = None,
) -> Checkpoint:
    """Reads a checkpoint, verifying all of it first. See `CheckpointStore.load`, which is this."""
    info = ref if isinstance(ref, CheckpointInfo) else locate(ref)
    if not info.path.is_dir():
        locate(info.path)  # raises, naming what there is
    try:
        with explain_os_errors(info.path, f"read {info}"):
            flat, manifest = read_bundle(info.path)
    except DamagedBundleError as damage:
        raise corrupt(info, damage) from damage
    checkpoint = _checkpoint(info, flat, manifest)
    _check_fingerprint(checkpoint, fingerprint)
    templates = dict(templates or {})
    if unknown := set(templates) - set(flat):
        raise CheckpointNotFoundError(f"{info} has no tree {sorted(unknown)[0]!r}; {known_names('', flat)}")
    restored = {name: restore(template, flat[name]) for name, template in templates.items()}
    checkpoint.trees.update(restored)
    return checkpoint


def _checkpoint(info: CheckpointInfo, flat: dict[str, Any], manifest: Manifest) -> Checkpoint:
    record = manifest.metadata
    try:
        known = CheckpointInfo(str(record["phase"]), int(record["outer_step"]), info.path)
        return Checkpoint(known, dict(flat), dict(record["user"]), manifest.digest, str(record["created"]))
    except (KeyError, TypeError, ValueError) as error:
        raise corrupt(info, DamagedBundleError(MANIFEST, "does not describe a checkpoint")) from error


def _check_fingerprint(checkpoint: Checkpoint, expected: str | None) -> None:
    stored = checkpoint.metadata.get("fingerprint")
    if expected is not None and stored != expected:
        raise FingerprintMismatchError(
            f"{checkpoint.info} was made by configuration {stored!r}, this run has {expected!r}. "
            "Use the configuration it was made with, or another phase name to start afresh."
        )
