"""Learning curves of evaluations: one small bundle per curve, named by a hash of what produced it.

A row is written whole or not at all, under a name that only its key decides. So workers may append at the
same time, the same curve is stored once, and an evaluation that was cut short continues where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from storage.bundles import MANIFEST, DamagedBundleError, Manifest, read_files, read_manifest, write_bundle
from storage.errors import explain_os_errors
from storage.files import check_path, remove_folder, remove_leftovers
from storage.packing import unpack

IMPORTED = "imported"
"""Label of a curve that was not computed here: the name of the file that it came with."""
_TREE = "curve"
_DIGEST = re.compile(r"[0-9a-f]{32}")
_ADDED = ("data", "version")
"""Fields of a key that curves of earlier versions do not have."""


@dataclass(frozen=True)
class CurveKey:
    """What produced a curve: two equal keys mean the same curve.

    Attributes:
      task: Fingerprint of the task configuration.
      optimizer: Name of a baseline, or fingerprint of a learned optimizer's weights.
      horizon: Number of inner steps.
      seed: Of the inner training.
      hyperparameters: JSON of the optimizer's settings (learning rate, schedule).
      data: What tells the data from others of the same name, by data set.
      version: Of the code that made it; 0 where it was made before that was told.
    """

    task: str
    optimizer: str
    horizon: int
    seed: int
    hyperparameters: dict[str, Any] = field(default_factory=dict, hash=False)
    data: dict[str, str] = field(default_factory=dict, hash=False)
    version: int = 0

    def digest(self) -> str:
        """Returns 32 hexadecimal digits that identify the key in every process."""
        facts = asdict(self)
        for name in _ADDED:  # left out where empty: earlier curves keep their names, and can be exported
            if not facts[name]:
                del facts[name]
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class CurveRow:
    """One learning curve.

    Attributes:
      key: What produced it.
      step: Inner steps at which the losses were measured, [P].
      losses: By split (train, inner_valid, test, …), each [P]; NaN and infinities are kept.
      seconds: Wall time of the whole run.
      labels: JSON to show and filter by (task name, role, versions of libraries); no part of the identity.
    """

    key: CurveKey
    step: np.ndarray
    losses: dict[str, np.ndarray]
    seconds: float = 0.0
    labels: dict[str, Any] = field(default_factory=dict)


class CurveStore:
    """The curves under one folder."""

    def __init__(self, path: Path | str) -> None:
        """Opens a store; nothing is created before the first append.

        Args:
          path: Its folder (`Workspace.curves`).
        """
        self.path = check_path(path, "a curve store")

    def has(self, key: CurveKey) -> bool:
        """Whether the curve of `key` is stored, undamaged."""
        return self.get(key) is not None

    def append(self, row: CurveRow) -> bool:
        """Stores a curve unless its key is there, undamaged; returns whether it was stored.

        Raises:
          ValueError: If the arrays are not all of one length [P].
          StorageFullError, ReadOnlyStorageError: With everything stored before intact.
        """
        shapes = {name: np.shape(values) for name, values in {"step": row.step, **row.losses}.items()}
        if len(set(shapes.values())) != 1 or len(shapes["step"]) != 1:
            raise ValueError(f"`step` and each of `losses` must have one shape [P], got {shapes}.")
        if self.has(row.key):
            return False
        folder = self._folder(row.key)
        with explain_os_errors(self.path, "store a curve"):
            remove_leftovers(folder.parent)
            while not _try_to_write(folder, row):
                if self.has(row.key):  # another process stored it first
                    return False
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    remove_folder(folder)  # damaged
        return True

    def get(self, key: CurveKey) -> CurveRow | None:
        """Returns the curve of `key`, or None if it is not stored or damaged."""
        try:
            return self._read(self._folder(key))
        except DamagedBundleError:
            return None

    def query(self, **filters: Any) -> list[CurveRow]:
        """Returns the stored curves that match, in a stable order.

        Args:
          **filters: Values that a field of the key, or else a label, must equal: `task=…, optimizer="adam"`.

        Damaged rows are left out, as if they had never been computed; `query_all` tells them.
        """
        return [row for _, row in self._scan(filters) if row is not None]

    def query_all(self) -> tuple[list[CurveRow], list[Path]]:
        """Returns every curve, and the folders of those that are damaged."""
        found = list(self._scan({}))
        return [row for _, row in found if row is not None], [folder for folder, row in found if row is None]

    def _scan(self, filters: dict[str, Any]) -> Iterator[tuple[Path, CurveRow | None]]:
        """Yields the folders of the curves that match, each with its curve; None where it is damaged."""
        for folder in sorted(self.path.glob("*/*")):
            if not _DIGEST.fullmatch(folder.name):  # being written, or removed
                continue
            try:
                manifest = self._manifest(folder)
                facts = {**manifest.metadata["labels"], **manifest.metadata["key"]}
                if all(name in facts and facts[name] == value for name, value in filters.items()):
                    yield folder, self._read(folder, manifest)
            except DamagedBundleError:
                yield folder, None

    def _folder(self, key: CurveKey) -> Path:
        digest = key.digest()
        return self.path / digest[:2] / digest

    @staticmethod
    def _manifest(folder: Path) -> Manifest:
        manifest = read_manifest(folder)
        if not {"key", "labels", "seconds"} <= set(manifest.metadata):
            raise DamagedBundleError(MANIFEST, "does not describe a curve")
        return manifest

    def _read(self, folder: Path, manifest: Manifest | None = None) -> CurveRow:
        manifest = manifest or self._manifest(folder)
        arrays = unpack(read_files(folder, manifest))[_TREE]
        losses = {name.removeprefix("loss/"): values for name, values in arrays.items() if name != "step"}
        record = manifest.metadata
        return CurveRow(
            CurveKey(**record["key"]), arrays["step"], losses, record["seconds"], record["labels"]
        )


def _try_to_write(folder: Path, row: CurveRow) -> bool:
    """Writes a curve; returns False, having written nothing, if there is a folder in its place."""
    arrays = {"step": np.asarray(row.step), **{f"loss/{k}": np.asarray(v) for k, v in row.losses.items()}}
    record = {"key": asdict(row.key), "seconds": float(row.seconds), "labels": row.labels}
    try:
        # Not synced: after a power cut a curve is recomputed, a checkpoint could not be.
        write_bundle(folder, {_TREE: arrays}, record, durable=False)
    except OSError:
        if not folder.is_dir():
            raise
        return False
    return True
