"""How long sampled tasks took: an append-only log of JSON records in two Zarr arrays.

    timings.zarr/records   uint8[bytes]   the records, UTF-8 JSON, end to end
    timings.zarr/ends      int64[n]       where each ends; −1 where the write was cut short

The records of an append are written before their ends, so one that is killed half-way leaves bytes nobody
points at, or an end that is not there yet: both are trimmed on reading, and overwritten by the next append.
(Zarr has no stable text type; JSON also lets records gain fields without a migration.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import StorageError, explain_os_errors
from storage.files import check_path, locked

_LAYOUT: dict[str, dict[str, Any]] = {
    "records": {"dtype": np.dtype(np.uint8), "chunks": (2**18,), "fill_value": 0},
    "ends": {"dtype": np.dtype(np.int64), "chunks": (2**12,), "fill_value": -1},
}


class TimingStore:
    """An append-only log of records; any number of processes may append and read."""

    def __init__(self, path: Path | str) -> None:
        """Opens a store; nothing is created before the first append.

        Args:
          path: Its folder (`Workspace.timings`).
        """
        self.path = check_path(path, "a timing store")

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Adds records at the end.

        Args:
          records: Strict JSON objects, for example `StepTiming.model_dump(mode="json")`.

        Raises:
          ValueError: If one is not strict JSON (NaN and the infinities are not).
          StorageFullError, ReadOnlyStorageError: With what was stored before still readable.
        """
        if not records:
            return
        lines = [json.dumps(dict(record), allow_nan=False).encode() for record in records]
        with explain_os_errors(self.path, "append timings"), locked(self.path.with_suffix(".lock")):
            bytes_array, ends_array = self._open(create=True)
            old_ends = self._good_ends(bytes_array, ends_array)
            start = int(old_ends[-1]) if old_ends.size else 0
            ends = start + np.cumsum([len(line) for line in lines], dtype=np.int64)
            _write_tail(bytes_array, start, np.frombuffer(b"".join(lines), np.uint8))
            _write_tail(ends_array, old_ends.size, ends)

    def read(self) -> list[dict[str, Any]]:
        """Returns all complete records, oldest first; empty if nothing was stored.

        Raises:
          StorageError: If a record that was completely written cannot be parsed: the file is damaged.
        """
        if not (self.path / "zarr.json").exists():
            return []
        with explain_os_errors(self.path, "read timings"):
            bytes_array, ends_array = self._open(create=False)
            ends = self._good_ends(bytes_array, ends_array)
            data = bytes(bytes_array[: int(ends[-1])]) if ends.size else b""
        limits = [0, *ends.tolist()]
        try:
            return [json.loads(data[start:stop]) for start, stop in pairwise(limits)]
        except ValueError as error:
            raise StorageError(
                f"timings in `{self.path}` are damaged ({error}). Remove that folder; timing runs again."
            ) from error

    def fingerprints(self, field: str = "config_fingerprint") -> set[str]:
        """Returns the values of `field` that occur, to skip what has been timed."""
        return {record[field] for record in self.read() if field in record}

    def _open(self, *, create: bool) -> tuple[Any, Any]:
        """Returns the arrays `records` and `ends`, creating what is not there if asked to."""
        import zarr

        group = zarr.open_group(self.path, mode="a" if create else "r")
        arrays = []
        for name, layout in _LAYOUT.items():
            if name in group:  # a creation that was killed may have left only the first
                arrays.append(group[name])
            elif create:
                arrays.append(group.create_array(name, shape=(0,), compressors=None, **layout))
            else:
                arrays.append(np.zeros(0, layout["dtype"]))
        return arrays[0], arrays[1]

    @staticmethod
    def _good_ends(bytes_array: Any, ends_array: Any) -> np.ndarray:
        """Returns the ends up to the first that is unwritten or points past the bytes."""
        ends = np.asarray(ends_array[:])
        previous = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        good = (ends > previous) & (ends <= bytes_array.shape[0])
        return ends[: int(np.argmin(good))] if not good.all() else ends


def _write_tail(array: Any, start: int, values: np.ndarray) -> None:
    """Writes `values` from `start` on, dropping what lay there; grows before it writes."""
    stop = start + len(values)
    if array.shape[0] > start:
        array.resize((start,))
    array.resize((stop,))
    array[start:stop] = values
