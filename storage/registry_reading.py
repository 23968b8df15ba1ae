"""Reading the model registry without importing MLflow: what a name points at, in milliseconds.

MLflow's Python client takes seconds to import, too long for `lopt.load("champion")`. These few reads go to
its database directly; a test holds them against MLflow's own answers.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from storage.errors import AliasNotFoundError, StorageError, known_names
from storage.mlflow_client import import_mlflow, query
from storage.workspace import Workspace

DEFAULT_MODEL = "keirin"
_REFERENCE = re.compile(r"models:/(?P<name>[^/@:]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class ModelReference:
    """What to look up: a registered model, and one of its aliases or versions."""

    name: str
    alias: str | None = None
    version: int | None = None


def parse_reference(ref: str) -> ModelReference:
    """Parses an alias of the default model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
      AliasNotFoundError: If it is none of these.
    """
    if match := _REFERENCE.fullmatch(ref):
        version = match["version"]
        return ModelReference(match["name"], match["alias"], int(version) if version else None)
    if not ref or "/" in ref or ":" in ref:
        raise AliasNotFoundError(
            f"{ref!r} is not a model. Use an alias like 'champion', 'models:/{DEFAULT_MODEL}@champion' "
            f"or 'models:/{DEFAULT_MODEL}/3'."
        )
    return ModelReference(DEFAULT_MODEL, ref)


def read_aliases(workspace: Workspace, name: str = DEFAULT_MODEL) -> dict[str, int]:
    """Returns the versions that the aliases of a registered model point at; empty if there is none yet."""
    rows = _rows(workspace, "SELECT alias, version FROM registered_model_aliases WHERE name = ?", name)
    return {str(alias): int(version) for alias, version in rows}


def read_versions(workspace: Workspace, name: str = DEFAULT_MODEL) -> dict[int, str]:
    """Returns where the artifacts of each version of a registered model are (a URI)."""
    rows = _rows(
        workspace,
        "SELECT version, source FROM model_versions WHERE name = ? AND current_stage != 'Deleted_Internal'",
        name,
    )
    return {int(version): str(source) for version, source in rows}


def read_models(workspace: Workspace) -> list[str]:
    """Returns the names of the registered models."""
    return [str(name) for (name,) in _rows(workspace, "SELECT name FROM registered_models")]


def resolve_version(workspace: Workspace, ref: str) -> ModelReference:
    """Returns the reference with its version filled in.

    Raises:
      AliasNotFoundError: If there is no such alias or version; lists those there are, and the nearest.
    """
    reference = parse_reference(ref)
    versions = read_versions(workspace, reference.name)
    if reference.version is None and reference.alias is not None:
        aliases = read_aliases(workspace, reference.name)
        if reference.alias not in aliases:
            raise AliasNotFoundError(_unknown_alias(workspace, reference, aliases))
        reference = ModelReference(reference.name, reference.alias, aliases[reference.alias])
    if reference.version not in versions:
        known = ", ".join(str(version) for version in sorted(versions)) or "none yet"
        unknown = f"model {reference.name!r} has no version {reference.version}"
        raise AliasNotFoundError(f"{unknown}; known: {known}.")
    return reference


def _unknown_alias(workspace: Workspace, reference: ModelReference, aliases: dict[str, int]) -> str:
    models = read_models(workspace)
    if models and reference.name not in models:
        return f"unknown model {reference.name!r}; {known_names(reference.name, models)}"
    message = f"unknown alias {reference.alias!r} of model {reference.name!r}; "
    message += known_names(str(reference.alias), aliases)
    if not aliases:
        message += f" Nothing was promoted in `{workspace.root}`: run `keirin demo`, or set KEIRIN_HOME."
    return message


def checkpoint_folder(workspace: Workspace, ref: str) -> Path:
    """Returns the folder of the checkpoint that `ref` points at, downloading it if it is not on this machine.

    Raises:
      AliasNotFoundError: If `ref` points at nothing.
    """
    reference = resolve_version(workspace, ref)
    source = read_versions(workspace, reference.name)[reference.version or 0]
    address = urlsplit(source)
    if address.scheme in ("", "file"):
        return Path(url2pathname(address.path))
    return Path(import_mlflow().artifacts.download_artifacts(artifact_uri=source))


def _rows(workspace: Workspace, statement: str, *values: str) -> list[tuple[Any, ...]]:
    database = workspace.mlflow_database
    if not database.exists():
        return []
    try:
        return query(database, statement, *values)
    except sqlite3.Error as error:
        raise StorageError(f"cannot read the model registry in `{database}`: {error}.") from error
