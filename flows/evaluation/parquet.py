"""Learning curves as one parquet file: for pandas, DuckDB or Polars, or for another workspace to import."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numcodecs import BitRound

from flows.evaluation.versions import CURVES_VERSION
from storage.curves import IMPORTED, CurveKey, CurveRow, CurveStore
from storage.errors import StorageError, explain_os_errors
from storage.files import check_path
from storage.workspace import Workspace

LABELS = ("task_name", "role", "jax", "optax", "platform")
_LOSS = "loss_"
NEEDED = frozenset({"train", "test"})
"""Splits that every evaluation reads: a curve without them would be found, and of no use."""
_ORDER = ("task", "horizon", "optimizer", "hyperparameters", "seed")
"""Of the rows: runs of one task, whose losses are alike, stand together. It makes the file an eighth smaller."""
KEEPBITS = 23
"""Bits of a float32's fraction: all of them."""
_KEEPBITS = b"keepbits"
"""Where a file says how many its losses have."""
_COLUMNS = {
    "task",
    "optimizer",
    "hyperparameters",
    "horizon",
    "seed",
    "seconds",
    "data",
    "curves_version",
    "step",
    *(f"{_LOSS}{split}" for split in NEEDED),
}


def export_curves(home: Path, path: Path, *, without: Collection[str] = (), keepbits: int = KEEPBITS) -> str:
    """Writes the curves of a workspace to `path`, which is replaced whole or not at all. Returns what was written.

    A row: task (fingerprint), task_name, optimizer (a baseline's name, or a fingerprint), role, hyperparameters
    (JSON), horizon, seed, seconds (of the whole run), data (JSON: version by name), curves_version (0: of before
    versions), jax, optax and platform of its worker, step (a list), and per split a list of losses. Sorted, so
    that the same curves make the same file.

    Args:
      home: Of the workspace.
      path: Of the file, .parquet.
      without: Splits to leave out, for a smaller file.
      keepbits: Of the 23 bits of a loss's fraction, for a smaller file: losses are rounded to 2^-(keepbits + 1) of
        themselves, and the file says so.

    Raises:
      ValueError: If the file would not be parquet, no curve has a split that is to be left out, an evaluation
        reads it, or the bits are none or too many.
    """
    target = _parquet(path, "an export")
    if not 1 <= keepbits <= KEEPBITS:
        raise ValueError(f"`keepbits` must be from 1 to {KEEPBITS}, got {keepbits}")
    if needed := sorted(NEEDED & set(without)):
        raise ValueError(f"`without` must not have {', '.join(needed)}: every evaluation reads it.")
    rows, damaged = CurveStore(Workspace(home).curves).query_all()
    known = sorted({split for row in rows for split in row.losses})
    table = _with_losses(pa.Table.from_pylist([_record(row, known) for row in rows]), _narrow)
    if rows:
        table = table.sort_by([(name, "ascending") for name in _ORDER])
    if rows and (unknown := sorted(set(without) - set(known))):
        raise ValueError(f"`without` must name splits of the curves, {', '.join(known)}; got {unknown}")
    table = table.drop_columns([f"{_LOSS}{split}" for split in known if split in without])
    if keepbits < KEEPBITS:
        table = _with_losses(table, partial(_rounded, keepbits=keepbits))
        table = table.replace_schema_metadata({_KEEPBITS: str(keepbits)})
    unfinished = target.with_name(f".{target.name}.part")
    with explain_os_errors(target, "export the curves"):
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, unfinished, compression="zstd", compression_level=19, **_encodings(table))
        unfinished.replace(target)
    return f"{len(rows)} curves in {target}{_left_out(damaged)}"


def import_curves(home: Path, path: Path) -> str:
    """Adds the curves of an export to a workspace, where evaluations find them. Returns what was added.

    A curve that is stored already stays as it is. Imported ones are marked so, with the file's name, and an
    evaluation that rests on one says so. Those of another version of the code are left out: none would be found.

    Raises:
      ValueError: If the file's name does not end in .parquet.
      StorageError: If there is no such file, or it is no export of curves; nothing is added.
    """
    source = _parquet(path, "an import")
    table = _read(source)
    label = source.name + _rounding(table)
    # All are read before any is added.
    rows = [_row(record, source, label) for record in table.to_pylist()]
    store = CurveStore(Workspace(home).curves)
    fate = Counter(_add(store, row) for row in rows)
    return f"{len(rows)} curves in {source}: " + ", ".join(f"{count} {what}" for what, count in fate.items())


def _with_losses(table: pa.Table, change: Callable[[pa.ListArray], pa.ListArray]) -> pa.Table:
    """Returns the table with every column of losses changed."""
    for place, name in enumerate(table.column_names):
        if name.startswith(_LOSS):
            table = table.set_column(place, name, change(table.column(name).combine_chunks()))
    return table


def _narrow(wide: pa.ListArray) -> pa.ListArray:
    """Returns losses as float32 where they are float32's, as those that workers compute are."""
    narrow = wide.cast(pa.list_(pa.float32()))
    same = np.array_equal(np.asarray(wide.flatten()), np.asarray(narrow.flatten()), equal_nan=True)
    return narrow if same else wide


def _rounded(losses: pa.ListArray, keepbits: int) -> pa.ListArray:
    """Returns losses rounded, those that are not finite as they are."""
    codec, values = BitRound(keepbits), np.asarray(losses.values, np.float32)
    rounded = np.where(np.isfinite(values), codec.decode(codec.encode(values)), values)
    # A curve may lack a split: that is no list, not an empty one.
    return pa.ListArray.from_arrays(losses.offsets, pa.array(rounded), mask=losses.is_null())


def _rounding(table: pa.Table) -> str:
    """Returns what a reader has to know of a file whose losses were rounded."""
    keepbits = (table.schema.metadata or {}).get(_KEEPBITS)
    return f" (losses rounded to {keepbits.decode()} bits)" if keepbits else ""


def _encodings(table: pa.Table) -> dict[str, list[str]]:
    """Returns how to write columns: losses byte by byte, which zstd makes less of, names and texts once."""
    losses = [name for name in table.column_names if name.startswith(_LOSS)]
    others = [name for name in table.column_names if name not in (*losses, "step")]
    return {
        "use_byte_stream_split": [f"{name}.list.element" for name in losses],
        "use_dictionary": [*others, "step.list.element"],
    }


def _add(store: CurveStore, row: CurveRow) -> str:
    if row.key.version != CURVES_VERSION:
        return f"left out (version {row.key.version} of the code, here {CURVES_VERSION})"
    return "added" if store.append(row) else "stored before"


def _parquet(path: Path, what: str) -> Path:
    if path.suffix != ".parquet":
        raise ValueError(f"`path` must end in .parquet, got {str(path)!r}")
    return check_path(path, what)


def _read(source: Path) -> pa.Table:
    if not source.is_file():
        raise StorageError(f"there is no file `{source}`. `keirin curves export` writes one.")
    try:
        with explain_os_errors(source, "import curves"):
            table = pq.read_table(source)
    except pa.ArrowException as error:
        raise StorageError(
            f"`{source}` is not parquet: {error}. `keirin curves export` writes it."
        ) from error
    missing = _COLUMNS - set(table.column_names)
    if missing:
        raise StorageError(
            f"`{source}` is no export of curves: it lacks the columns {', '.join(sorted(missing))}. "
            "`keirin curves export` writes one that has them."
        )
    return table


def _left_out(damaged: Sequence[Path]) -> str:
    if not damaged:
        return ""
    first = f"the first is `{damaged[0]}`"
    return f"; {len(damaged)} damaged, left out: {first}. An evaluation that needs one computes it again"


def _record(row: CurveRow, splits: Sequence[str]) -> dict[str, object]:
    """Returns a row of the table with a column for every split: PyArrow drops those that its first row lacks."""
    return {
        "task": row.key.task,
        "optimizer": row.key.optimizer,
        "hyperparameters": json.dumps(row.key.hyperparameters, sort_keys=True),
        "horizon": row.key.horizon,
        "seed": row.key.seed,
        "seconds": row.seconds,
        "data": json.dumps(row.key.data, sort_keys=True),
        "curves_version": row.key.version,
        **{name: row.labels.get(name, "") for name in LABELS},
        "step": row.step.tolist(),
        **{
            f"{_LOSS}{split}": row.losses[split].tolist() if split in row.losses else None for split in splits
        },
    }


def _row(record: dict[str, Any], source: Path, label: str) -> CurveRow:
    losses = {
        name: values for name, values in record.items() if name.startswith(_LOSS) and values is not None
    }
    try:
        key = CurveKey(
            task=str(record["task"]),
            optimizer=str(record["optimizer"]),
            horizon=int(record["horizon"]),
            seed=int(record["seed"]),
            hyperparameters=dict(json.loads(record["hyperparameters"])),
            data=dict(json.loads(record["data"])),
            version=int(record["curves_version"]),
        )
        row = CurveRow(
            key=key,
            step=np.asarray(record["step"], np.int64),
            losses={
                name.removeprefix(_LOSS): np.asarray(values, np.float64) for name, values in losses.items()
            },
            seconds=float(record["seconds"]),
            labels={name: str(record.get(name) or "") for name in LABELS} | {IMPORTED: label},
        )
    except (TypeError, ValueError) as error:
        raise StorageError(f"`{source}` has a row that is no curve: {error}. Export it again.") from error
    if not set(row.losses) >= NEEDED or {len(values) for values in row.losses.values()} != {len(row.step)}:
        raise StorageError(f"`{source}` has a curve without a loss for each of its steps. Export it again.")
    return row
