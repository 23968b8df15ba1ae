"""Many metric values into MLflow's database at once, by plain SQL.

MLflow's own `log_batch` makes several objects of every value and compares each with the latest in Python, which
takes the learner's process ten times as long, with the interpreter's lock held. What is written here is what it
would write, row for row: the value under its step and time, NaN as a flag, infinities as the largest float, and the
latest value of each metric in a table of its own. If an MLflow has other columns than these, the caller uses
`log_batch`.
"""

from __future__ import annotations

import errno
import math
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from storage.errors import StorageError, explain_os_errors
from storage.tracking_protocol import MetricPoint

DISK_ERRORS = {"disk is full": errno.ENOSPC, "readonly database": errno.EROFS}
"""What SQLite says, and the error of the operating system that it means."""
_Row = tuple[str, float, int, int, bool, str]
_COLUMNS = ("key", "value", "timestamp", "step", "is_nan", "run_uuid")
_LOCK_SECONDS = 30.0
_VALUES = f"({', '.join(_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?)"
_NEW_LATEST = ", ".join(f"{name} = excluded.{name}" for name in ("value", "timestamp", "step", "is_nan"))
_INSERT = f"INSERT OR IGNORE INTO metrics {_VALUES}"
_LATEST = (
    f"INSERT INTO latest_metrics {_VALUES} ON CONFLICT (key, run_uuid) DO UPDATE SET {_NEW_LATEST} "
    "WHERE (excluded.step, excluded.timestamp, excluded.value) > (step, timestamp, value)"
)


def write_points(database: Path, run_id: str, points: Sequence[MetricPoint]) -> bool:
    """Writes the values in one transaction: all of them or none. Returns False if the tables are not as expected.

    Raises:
      StorageFullError, ReadOnlyStorageError: If the disk does not take them.
      StorageError: If the database stays locked, or there is no such run.
    """
    rows = [_row(run_id, point) for point in points]
    with _explained(database), closing(sqlite3.connect(database, timeout=_LOCK_SECONDS)) as connection:
        if not all(_columns(connection, table) == set(_COLUMNS) for table in ("metrics", "latest_metrics")):
            return False
        connection.execute("PRAGMA foreign_keys = ON")
        with connection:
            connection.executemany(_INSERT, rows)
            connection.executemany(_LATEST, _latest(rows))
    return True


def _latest(rows: Sequence[_Row]) -> list[_Row]:
    """Returns the latest value of every metric, by MLflow's order: step, time, value."""
    latest: dict[str, _Row] = {}
    for row in rows:
        before = latest.get(row[0])
        if before is None or (row[3], row[2], row[1]) > (before[3], before[2], before[1]):
            latest[row[0]] = row
    return list(latest.values())


def _row(run_id: str, point: MetricPoint) -> _Row:
    value = 0.0 if math.isnan(point.value) else point.value
    if math.isinf(value):
        value = math.copysign(sys.float_info.max, value)
    return point.name, value, point.milliseconds, point.step, math.isnan(point.value), run_id


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


@contextmanager
def _explained(database: Path) -> Iterator[None]:
    with explain_os_errors(database, "record metrics"):
        try:
            yield
        except sqlite3.Error as error:
            code = next((number for words, number in DISK_ERRORS.items() if words in str(error)), None)
            if code is None:
                raise StorageError(f"cannot record metrics in `{database}`: {error}.") from error
            raise OSError(code, os.strerror(code)) from error
