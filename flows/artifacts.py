"""What a step has produced, keyed by everything that it depends on: a step whose artifact exists is
skipped.

An artifact is a JSON document `<name>-<fingerprint>.json`, written whole or not at all. Its fingerprint
covers the step's name and version, its configuration, and the fingerprints of the artifacts that went in;
what runs where (`flows.settings`) is no part of it. Large results (arrays, curves, checkpoints) lie in the
stores of `storage`; the artifact says where.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.errors import explain_os_errors
from storage.files import read_json, write_json


@dataclass(frozen=True)
class ArtifactSpec:
    """The identity of one result.

    Attributes:
      name: Of the step.
      version: Raised when the step's code changes what it means.
      config: JSON that decides the result.
      dependencies: Fingerprints of what went in.
    """

    name: str
    version: int
    config: Mapping[str, Any] = field(default_factory=dict)
    dependencies: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that are the same in every process."""
        return fingerprint_of([self.name, self.version, dict(self.config), list(self.dependencies)])


def fingerprint_of(value: Any) -> str:
    """Returns 16 hexadecimal digits of the SHA-256 of strict, canonical JSON.

    Raises:
      ValueError: If `value` holds a NaN or an infinity, which have no exact JSON form.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class ArtifactStore:
    """The artifacts of a workspace.

    Args:
      folder: Where they lie; created by the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, spec: ArtifactSpec) -> Path:
        """Returns where an artifact is, or would be."""
        return self.folder / f"{spec.name}-{spec.fingerprint}.json"

    def read(self, spec: ArtifactSpec) -> dict[str, Any] | None:
        """Returns the result of a complete step, or None if it has to run."""
        document = read_json(self.path(spec))
        if not isinstance(document, dict) or document.get("fingerprint") != spec.fingerprint:
            return None
        result = document.get("result")
        return result if isinstance(result, dict) else None

    def write(self, spec: ArtifactSpec, result: Mapping[str, Any]) -> Path:
        """Marks a step as complete. Returns the file."""
        document = {
            "name": spec.name,
            "version": spec.version,
            "fingerprint": spec.fingerprint,
            "config": dict(spec.config),
            "dependencies": list(spec.dependencies),
            "result": dict(result),
        }
        path = self.path(spec)
        with explain_os_errors(path, f"mark the step {spec.name!r} as complete"):
            write_json(path, document)
        return path
