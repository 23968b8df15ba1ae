"""Where a project keeps its data: one folder, `.keirin` unless told otherwise."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import ReadOnlyStorageError, UnsafePathError, explain_os_errors
from storage.files import check_path, read_json, temporary_name, write_file, write_json

HOME_VARIABLE = "KEIRIN_HOME"
DEFAULT_ROOT = Path(".keirin")


def default_root() -> Path:
    """Returns `$KEIRIN_HOME` if that is set, else `.keirin` in the current folder."""
    return Path(os.environ.get(HOME_VARIABLE) or DEFAULT_ROOT)


@dataclass(frozen=True, init=False)
class Workspace:
    """The folder that holds everything, and the names inside it.

    The path is made absolute when the workspace is built, so a later change of the current folder does not
    move it. Nothing is created before `ensure`.
    """

    root: Path

    def __init__(self, root: Path | str | None = None) -> None:
        """Names a workspace.

        Args:
          root: Its folder; None takes `$KEIRIN_HOME`, or `.keirin` in the current folder.

        Raises:
          UnsafePathError: If that cannot be a workspace: empty, a URL, the root of the file system.
        """
        path = check_path(default_root() if root is None else root, "a workspace")
        if path.resolve() == Path(path.anchor):
            raise UnsafePathError(
                f"a workspace must be a folder of its own, got `{path}`. Try `{path / 'keirin'}`."
            )
        object.__setattr__(self, "root", path)

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def timings(self) -> Path:
        return self.root / "timings.zarr"

    @property
    def curves(self) -> Path:
        return self.root / "curves.zarr"

    @property
    def runtime_model(self) -> Path:
        return self.root / "runtime_model"

    @property
    def mlflow_database(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlartifacts"

    @property
    def prefect(self) -> Path:
        return self.root / "prefect"

    @property
    def dask(self) -> Path:
        return self.root / "dask"

    @property
    def compilation_cache(self) -> Path:
        return self.root / "compilation_cache"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def live_pages(self) -> Path:
        return self.reports / "live"

    @property
    def control(self) -> Path:
        """One record per running phase."""
        return self.root / "control"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def state_file(self) -> Path:
        return self.root / "state.json"

    @property
    def tracking_uri(self) -> str:
        """The address of the tracking database, for MLflow."""
        return f"sqlite:///{self.mlflow_database}"

    def ensure(self) -> Workspace:
        """Creates the folders and checks that they can be written. Returns itself.

        Raises:
          ReadOnlyStorageError: If the folder cannot be written, or a file is in its place.
          StorageFullError: If the disk is full.
        """
        folders = (self.checkpoints, self.runtime_model, self.mlflow_artifacts, self.prefect, self.dask)
        with explain_os_errors(self.root, "prepare the workspace"):
            if self.root.exists() and not self.root.is_dir():
                raise ReadOnlyStorageError(
                    f"the workspace `{self.root}` is a file. Remove it, or set {HOME_VARIABLE}."
                )
            for folder in (*folders, self.compilation_cache, self.reports, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            ignore = self.root / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            probe = self.root / temporary_name("tmp")
            try:
                write_file(probe, b"\0" * 4096, durable=True)
            finally:
                probe.unlink(missing_ok=True)
        return self

    def read_state(self) -> dict[str, Any]:
        """Returns the pipeline's small record of what is done (`state.json`), empty at first."""
        state = read_json(self.state_file)
        return state if isinstance(state, dict) else {}

    def write_state(self, state: dict[str, Any]) -> None:
        """Replaces the record of what is done, atomically."""
        with explain_os_errors(self.state_file, "write the pipeline's state"):
            write_json(self.state_file, state)
