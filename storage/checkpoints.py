"""Checkpoints of a phase: kept by outer step, verified when read, never overwritten.

    <root>/<phase>/step-0000000150/      a bundle (see `storage.bundles`): flat Zarr arrays and a manifest
    <root>/<phase>/step-0000000150.pin   keeps that checkpoint from being pruned; so does …150.OWNER.pin

An owner that is a process (`process_owner`) keeps it as long as it runs: pins that it leaves behind do not count.

A save is one rename after everything is on disk, so whatever kills the process, each step is there whole or
not at all.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.bundles import DamagedBundleError, Manifest, prepare
from storage.checkpoint_reading import (
    Checkpoint,
    CheckpointInfo,
    corrupt,
    list_phase,
    load_checkpoint,
    locate,
    verify,
)
from storage.errors import CheckpointExistsError, CorruptCheckpointError, explain_os_errors
from storage.files import check_name, check_path, is_running, remove_folder, remove_leftovers, write_folder
from storage.pytrees import PyTree, flatten

__all__ = ["Checkpoint", "CheckpointInfo", "CheckpointStore", "load_checkpoint", "locate", "process_owner"]

logger = logging.getLogger(__name__)
_MAX_STEP = 10**18
_PROCESS = re.compile(r".+?-on-(?P<host>.+)-(?P<pid>\d+)")


class CheckpointStore:
    """The checkpoints under one folder."""

    def __init__(self, root: Path | str, *, keep: int = 3) -> None:
        """Opens a store; nothing is created before the first save.

        Args:
          root: Its folder (`Workspace.checkpoints`).
          keep: How many of each phase's newest checkpoints to keep besides pinned ones. At least 2 leaves a
            good one to offer when the newest is damaged.
        """
        if keep < 1:
            raise ValueError(f"`keep` must be at least 1, got {keep=}.")
        self.root = check_path(root, "a checkpoint store")
        self.keep = keep
        self.skipped: list[CorruptCheckpointError] = []
        """Damaged checkpoints that `latest_good` passed over, for the run's report."""

    def info(self, phase: str, outer_step: int) -> CheckpointInfo:
        """Returns where a checkpoint is or would be."""
        if not 0 <= outer_step < _MAX_STEP:
            raise ValueError(f"`outer_step` must be in [0, 10**18), got {outer_step=}.")
        folder = self.root / check_name(phase, "phase name") / f"step-{outer_step:010d}"
        return CheckpointInfo(phase, int(outer_step), folder)

    def save(
        self, phase: str, outer_step: int, trees: Mapping[str, PyTree], metadata: Mapping[str, Any]
    ) -> CheckpointInfo:
        """Writes one checkpoint durably, then prunes the phase's old ones.

        Saving the same arrays again (a resumed run that repeats a step) leaves the existing checkpoint; a
        damaged one in its place is replaced.

        Args:
          phase: Name of the phase; becomes a folder name.
          outer_step: Non-negative.
          trees: Pytrees of arrays by name, for example theta, theta_optimizer_state, key.
          metadata: Strict JSON. By convention `architecture` (the learned optimizer's configuration) and
            `fingerprint` (of the phase).

        Raises:
          CheckpointExistsError: If a good checkpoint with other arrays is there.
          StorageFullError, ReadOnlyStorageError: With the previous checkpoints untouched.
        """
        info = self.info(phase, outer_step)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        flat = {check_name(name, "tree name"): flatten(tree) for name, tree in trees.items()}
        record = {"phase": phase, "outer_step": info.outer_step, "created": created, "user": dict(metadata)}
        contents, manifest = prepare(flat, record)
        with explain_os_errors(info.path.parent, f"save {info}"):
            if info.path.exists() and self._is_stored(info, manifest):
                return info
            remove_leftovers(info.path.parent)
            write_folder(info.path, contents)
            self.prune(phase)
        return info

    def _is_stored(self, info: CheckpointInfo, manifest: Manifest) -> bool:
        """Whether these arrays are there already; makes room if what is there is damaged."""
        try:
            existing = verify(info)
        except DamagedBundleError as damage:
            logger.warning("replacing damaged %s: %s", info, damage)
            remove_folder(info.path)
            return False
        if existing.digest == manifest.digest:
            return True
        raise CheckpointExistsError(
            f"{info} exists with other contents (`{info.path}`). "
            "Continue from it, save under another phase name, or remove it with `CheckpointStore.discard`."
        )

    def load(
        self,
        ref: CheckpointInfo | Path | str,
        *,
        templates: Mapping[str, PyTree] | None = None,
        fingerprint: str | None = None,
    ) -> Checkpoint:
        """Reads a checkpoint and verifies all of it first.

        Args:
          ref: Which one; a path may be outside this store.
          templates: Trees to restore into, by name; trees without one are returned flat.
          fingerprint: If given, what the metadata's `fingerprint` must be.

        Raises:
          CheckpointNotFoundError: If there is none; says which there are.
          CorruptCheckpointError: If a file is not as written; names it and the last good checkpoint.
          FingerprintMismatchError: If it was made by another configuration.
          TreeMismatchError: If a tree does not fit its template.
        """
        return load_checkpoint(ref, templates=templates, fingerprint=fingerprint)

    def phases(self) -> list[str]:
        """Returns the phases that have checkpoints."""
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else []
        return [folder.name for folder in folders if list_phase(folder)]

    def list(self, phase: str | None = None) -> list[CheckpointInfo]:
        """Returns the checkpoints of a phase, or of all, oldest step first; nothing is verified."""
        names = self.phases() if phase is None else [check_name(phase, "phase name")]
        return [info for name in names for info in list_phase(self.root / name)]

    def latest(self, phase: str) -> CheckpointInfo | None:
        """Returns the phase's newest checkpoint, unverified; None if there is none."""
        return next(reversed(self.list(phase)), None)

    def latest_good(self, phase: str) -> CheckpointInfo | None:
        """Returns the phase's newest undamaged checkpoint; damaged ones are logged and put in `skipped`."""
        for info in reversed(self.list(phase)):
            try:
                verify(info)
            except DamagedBundleError as damage:
                self.skipped.append(corrupt(info, damage))
                logger.warning("%s", self.skipped[-1])
                continue
            return info
        return None

    def pin(self, info: CheckpointInfo, owner: str = "") -> None:
        """Keeps a checkpoint from being pruned (a promoted one, the end of a phase).

        Args:
          info: Which one.
          owner: Who needs it; it is kept until every owner has unpinned it, or is a process that has ended
            (`process_owner`). Empty: the run itself.
        """
        with explain_os_errors(info.path, f"pin {info}"):
            _pin_file(info, owner).touch()

    def unpin(self, info: CheckpointInfo, owner: str = "") -> None:
        """Lets a checkpoint be pruned again, as far as `owner` is concerned."""
        _pin_file(info, owner).unlink(missing_ok=True)

    def discard(self, info: CheckpointInfo) -> None:
        """Removes a checkpoint, pinned or not."""
        for pin in _pins(info):
            pin.unlink(missing_ok=True)
        remove_folder(info.path)

    def prune(self, phase: str) -> None:
        """Removes all but the newest `keep` checkpoints of a phase and the pinned ones."""
        for info in self.list(phase)[: -self.keep]:
            for pin in _pins(info):
                if _is_left_behind(pin, info):
                    pin.unlink(missing_ok=True)
            if not _pins(info):
                remove_folder(info.path)


def process_owner(name: str) -> str:
    """Returns the owner of pins that last as long as this process: NAME-on-HOST-PID."""
    return f"{name}-on-{socket.gethostname()}-{os.getpid()}"


def _is_left_behind(pin: Path, info: CheckpointInfo) -> bool:
    """Whether a pin is that of a process of this machine that has ended; of other machines nothing is known."""
    owner = pin.name.removeprefix(f"{info.path.name}.").removesuffix(".pin")
    match = _PROCESS.fullmatch(owner)
    return match is not None and match["host"] == socket.gethostname() and not is_running(int(match["pid"]))


def _pin_file(info: CheckpointInfo, owner: str) -> Path:
    name = f"{info.path.name}.{check_name(owner, 'pin owner')}.pin" if owner else f"{info.path.name}.pin"
    return info.path.with_name(name)


def _pins(info: CheckpointInfo) -> list[Path]:
    own = _pin_file(info, "")
    return [*info.path.parent.glob(f"{info.path.name}.*.pin"), *([own] if own.exists() else [])]
