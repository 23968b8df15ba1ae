"""What a learning curve depends on besides its configuration: the data behind a name, and the code.

A task's configuration names its data set, and what lies behind the name can change: it is prepared anew, with more
examples or from other files; the embedded English is that of the running Python.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from storage.datasets import WorkspaceReader
from storage.errors import StorageError
from task_generator.datasets.english import documents
from task_generator.datasets.english_subwords import cache_key
from task_generator.datasets.prepared import readers
from task_generator.datasets.public import PUBLIC_IMAGES, PUBLIC_TEXTS
from task_generator.task_config import TaskConfig, parse_task_config

CURVES_VERSION = 2
"""Raised when what a curve would be changes: a baseline, a family or the inner loop was mended. All curves are then
computed again, since none is found under the new version. 2: with the loss on the test split."""
NOT_PREPARED = "not prepared"


def data_versions(configs: Iterable[TaskConfig]) -> dict[str, str]:
    """Returns the version of every data set that some tasks read, by name.

    Of prepared data it is their checksum, as their manifest has it; of the embedded text, its hash. The digits and
    the photographs are scikit-learn's own files and have none.

    Raises:
      DamagedDatasetError: If a manifest is not as it was written.
    """
    names = sorted({name for config in configs for name in dataset_names(config)})
    workspaces = _workspace_readers() if any(map(_is_public, names)) else []
    versions = {name: _version(name, workspaces) for name in names}
    return {name: version for name, version in versions.items() if version is not None}


def dataset_names(config: TaskConfig) -> set[str]:
    """Returns the names of the data sets that a task reads, those of tasks within it included."""
    return set(_datasets(json.loads(config.canonical_json())))


def require_data(task_json: str, planned: dict[str, str]) -> None:
    """Refuses, on a worker, to compute a curve that would be stored as one of other data.

    Args:
      task_json: The task's configuration.
      planned: The versions of its data that the curve is stored under.

    Raises:
      StorageError: If this worker would read, or may hold in memory, data of another version.
    """
    found = data_versions([parse_task_config(task_json)])
    for name, version in planned.items():
        if found.get(name) != version:
            raise StorageError(
                f"a worker's data set {name!r} is another one ({found.get(name)}) than where the evaluation was "
                f"planned ({version}). Prepare the same data on both: `keirin data prepare {name}`."
            )
        if _is_public(name) and any(reader.holds_earlier(name) for reader in _workspace_readers()):
            raise StorageError(
                f"the data set {name!r} was prepared again after this worker had read it, and the worker may still "
                "hold the earlier data. Restart the workers (`keirin up`), then run the same command again."
            )


def _datasets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("dataset"), str):
            yield value["dataset"]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _datasets(part)


def _is_public(name: str) -> bool:
    return name in PUBLIC_IMAGES or name in PUBLIC_TEXTS


def _version(name: str, workspaces: Sequence[WorkspaceReader]) -> str | None:
    if name == "english_bytes":
        return _english()
    if name == "english_subwords":
        return _english_subwords()
    if _is_public(name):
        found = (reader.version(name) for reader in workspaces)
        return next((version for version in found if version is not None), NOT_PREPARED)
    return None


def _workspace_readers() -> list[WorkspaceReader]:
    """Returns the readers that a task family asks, as far as they know versions."""
    return [reader for reader in readers() if isinstance(reader, WorkspaceReader)]


@functools.lru_cache(maxsize=1)
def _english() -> str:
    return hashlib.sha256(json.dumps(documents()).encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=1)
def _english_subwords() -> str:
    return cache_key()
