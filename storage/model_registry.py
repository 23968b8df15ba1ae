"""The registry of trained optimizers: numbered versions, and aliases that say which one is in use.

A version is a copy of a checkpoint among MLflow's artifacts, so it outlives the pruning of checkpoints, and
MLflow alone suffices to fetch it. `promote` moves `champion` and keeps the one before as `previous-champion`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, TypeAlias

from storage.bundles import DamagedBundleError
from storage.checkpoint_reading import CheckpointInfo, corrupt, locate, verify
from storage.errors import AliasMovedError, AliasNotFoundError, CheckpointNotFoundError
from storage.files import check_name
from storage.mlflow_client import (
    explain_mlflow_errors,
    import_mlflow,
    migrate_tracking_database,
    tracking_client,
)
from storage.registry_reading import (
    DEFAULT_MODEL,
    checkpoint_folder,
    read_aliases,
    read_versions,
    resolve_version,
)
from storage.workspace import Workspace

CHAMPION = "champion"
PREVIOUS_CHAMPION = "previous-champion"
CANDIDATE = "candidate"


class Absent(enum.Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""There must be no champion: `None` would say that it does not matter who it is."""
Expected: TypeAlias = int | Absent | None
"""The champion that something was decided against."""


class ModelRegistry:
    """The workspace's registry. Reading takes milliseconds; only writing imports MLflow."""

    def __init__(self, workspace: Workspace) -> None:
        """Names the registry; nothing is opened or created yet."""
        self.workspace = workspace

    def _client(self) -> Any:
        migrate_tracking_database(self.workspace)
        return tracking_client(self.workspace)

    def register(
        self,
        name: str,
        checkpoint: CheckpointInfo,
        run_id: str,
        tags: Mapping[str, str] | None = None,
    ) -> int:
        """Copies a checkpoint into a run's artifacts and registers it. Returns the new version number.

        Args:
          name: Of the registered model (`DEFAULT_MODEL`), created if need be.
          checkpoint: Verified first.
          run_id: The tracked run that made it.
          tags: Facts to show with the version; phase and outer step are added.

        Raises:
          CorruptCheckpointError: If the checkpoint is damaged.
        """
        check_name(name, "model name")
        try:
            digest = verify(checkpoint).digest
        except DamagedBundleError as damage:
            raise corrupt(checkpoint, damage) from damage
        client = self._client()
        # The digest keeps apart what one run saved under one phase and step at different times.
        folder = f"checkpoint/{digest[:12]}/{checkpoint.phase}/{checkpoint.path.name}"
        facts = {"phase": checkpoint.phase, "outer_step": str(checkpoint.outer_step), "digest": digest}
        with self._explained(f"register {checkpoint}"):
            client.log_artifacts(run_id, str(checkpoint.path), folder)
            self._create_model(client, name)
            version = client.create_model_version(
                name,
                source=f"{client.get_run(run_id).info.artifact_uri}/{folder}",
                run_id=run_id,
                tags={**facts, **(tags or {})},
                await_creation_for=0,
            )
        return int(version.version)

    def _explained(self, doing: str) -> AbstractContextManager[None]:
        return explain_mlflow_errors(str(self.workspace.mlflow_database), doing)

    @staticmethod
    def _create_model(client: Any, name: str) -> None:
        mlflow = import_mlflow()
        try:
            client.create_registered_model(name)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Points an alias at a version.

        Raises:
          AliasNotFoundError: If there is no such version.
        """
        check_name(alias, "alias")
        resolve_version(self.workspace, f"models:/{check_name(name, 'model name')}/{version}")
        with self._explained(f"set the alias {alias!r}"):
            self._client().set_registered_model_alias(name, alias, str(version))

    def tag_version(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        """Adds facts to a version, to show with it."""
        with self._explained(f"tag version {version}"):
            client = self._client()
            for key, value in tags.items():
                client.set_model_version_tag(name, str(version), key, value)

    def promote(self, name: str, version: int, *, expected: Expected = None) -> dict[str, int]:
        """Makes a version the champion and keeps the one before as `previous-champion`. Returns the aliases.

        Promoting the champion again changes nothing. Killed half-way, both aliases point at the old champion.
        `champion` moves in one write: whoever reads it gets the old version or the new one.

        Args:
          name: Of the registered model.
          version: The new champion.
          expected: The champion that the decision was made against; `ABSENT`: none; None: whichever it is.

        Raises:
          AliasNotFoundError: If there is no such version.
          AliasMovedError: If the champion is neither `expected` nor `version`.
        """
        champion = self.aliases(name).get(CHAMPION)
        if champion != version:
            require_champion(champion, expected)
            if version not in self.versions(name):
                resolve_version(self.workspace, f"models:/{name}/{version}")
            if champion is not None:
                self.set_alias(name, PREVIOUS_CHAMPION, champion)
            self.set_alias(name, CHAMPION, version)
        return self.aliases(name)

    def aliases(self, name: str = DEFAULT_MODEL) -> dict[str, int]:
        """Returns the version that each alias points at; empty if nothing is registered."""
        return read_aliases(self.workspace, name)

    def versions(self, name: str = DEFAULT_MODEL) -> list[int]:
        """Returns the registered versions, oldest first."""
        return sorted(read_versions(self.workspace, name))

    def is_good(self, name: str, version: int) -> bool:
        """Whether a version exists and every byte of its checkpoint is as written."""
        try:
            verify(locate(self.resolve(f"models:/{name}/{version}")))
        except (AliasNotFoundError, CheckpointNotFoundError, DamagedBundleError):
            return False
        return True

    def resolve(self, ref: str) -> Path:
        """Returns the folder of the checkpoint that an alias or `models:/` URI points at.

        Raises:
          AliasNotFoundError: If it points at nothing; lists the known aliases, and the nearest.
        """
        return checkpoint_folder(self.workspace, ref)


def require_champion(champion: int | None, expected: Expected) -> None:
    """Refuses to go on if the champion is not the one that was decided against.

    Args:
      champion: Who it is now; None: nobody.
      expected: Who it was; `ABSENT`: nobody; None: whoever it is.

    Raises:
      AliasMovedError: If it is another one.
    """
    former = None if expected is ABSENT else expected
    if expected is None or champion == former:
        return
    raise AliasMovedError(
        f"the champion was {_called(former)} when this was decided and is {_called(champion)} now: "
        "somebody else moved it. Decide again: `keirin promote`."
    )


def _called(champion: int | None) -> str:
    return "nobody" if champion is None else f"version {champion}"
