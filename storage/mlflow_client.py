"""Getting at MLflow: imported only when first needed, quiet, and with the database made once.

Importing MLflow takes seconds, so nothing imports it at module level. Its database is created under a lock:
processes that create one at the same time break each other's migrations.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from storage.errors import StorageError, explain_os_errors
from storage.files import locked
from storage.mlflow_points import DISK_ERRORS
from storage.workspace import Workspace

EXPERIMENT = "keirin"


def import_mlflow() -> Any:
    """Returns the `mlflow` module, with its telemetry off and its start-up messages hidden."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations among its own dependencies
        import mlflow
        import mlflow.tracking
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks of what it also raises
    return mlflow


def migrate_tracking_database(workspace: Workspace) -> None:
    """Creates the tracking database and keirin's experiment; does nothing if they are there.

    Call it in one process before any other opens the database (2 s, then milliseconds). It is made beside its
    place and renamed into it: killed half-way, it starts over instead of leaving half the tables.

    Raises:
      StorageFullError, ReadOnlyStorageError: If it cannot be written.
      StorageError: If there is something else in its place.
    """
    database = workspace.mlflow_database
    if _is_ready(database):
        return
    with explain_os_errors(database, "create the tracking database"), locked(database.with_suffix(".lock")):
        if not database.exists():
            _create(database)
        elif not _is_sqlite(database):
            raise StorageError(f"`{database}` is not an MLflow database. Move it away, then try again.")
    client = tracking_client(workspace)
    with locked(database.with_suffix(".lock")):
        if client.get_experiment_by_name(EXPERIMENT) is None:
            client.create_experiment(EXPERIMENT, artifact_location=workspace.mlflow_artifacts.as_uri())


def _is_ready(database: Path) -> bool:
    try:
        rows = query(database, "SELECT experiment_id FROM experiments WHERE name = ?", EXPERIMENT)
    except sqlite3.Error:
        return False
    return bool(rows)


def _is_sqlite(database: Path) -> bool:
    with database.open("rb") as file:
        return file.read(15) == b"SQLite format 3"


def _create(database: Path) -> None:
    """Runs MLflow's migrations on a temporary file without waiting for the disk, syncs and renames it."""
    import_mlflow()
    import sqlalchemy
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    temporary = database.with_name(f"{database.name}.{uuid.uuid4().hex[:8]}.tmp")
    engine = create_sqlalchemy_engine(f"sqlite:///{temporary}")
    sqlalchemy.event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous = OFF"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _initialize_tables(engine)
        engine.dispose()
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, database)
    finally:
        engine.dispose()
        for leftover in database.parent.glob(f"{temporary.name}*"):
            leftover.unlink(missing_ok=True)


@lru_cache(maxsize=8)
def tracking_client(workspace: Workspace) -> Any:
    """Returns an `MlflowClient` for the workspace's database; global MLflow settings stay as they are."""
    uri = workspace.tracking_uri
    return import_mlflow().tracking.MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def explain_mlflow_errors(database: str, doing: str) -> Iterator[None]:
    """Turns MLflow's report of a full or read-only disk into the error that the other stores raise.

    Args:
      database: Where the tracking database is.
      doing: What was being attempted, to follow "cannot".
    """
    mlflow = import_mlflow()
    try:
        with explain_os_errors(Path(database), doing):
            yield
    except mlflow.exceptions.MlflowException as error:
        text = str(error)
        code = next((number for words, number in DISK_ERRORS.items() if words in text), None)
        if code is None:
            raise
        with explain_os_errors(Path(database), doing):
            raise OSError(code, os.strerror(code)) from error


def query(database: Path, statement: str, *values: str | int) -> list[tuple[Any, ...]]:
    """Returns the rows of a read-only SQL query: milliseconds, where importing MLflow takes seconds.

    Raises:
      sqlite3.Error: If there is no such file, or it is something else.
    """
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.close()
