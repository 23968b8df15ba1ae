"""Every stored learning curve as one parquet file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.curves import CurveRow, CurveStore
from storage.errors import explain_os_errors
from storage.files import check_path
from storage.workspace import Workspace


def export_curves(home: Path, path: Path) -> str:
    """Writes the curves of a workspace to `path`, which is replaced whole or not at all. Returns what was written.

    A row: task (fingerprint), task_name, optimizer (a baseline's name, or a fingerprint), role, hyperparameters
    (JSON), horizon, seed, seconds (of the whole run), data (JSON: version by name), curves_version (0: of before
    versions), jax, optax and platform of its worker, step (a list), and per split a list of losses.

    Raises:
      ValueError: If the file would not be parquet.
    """
    if path.suffix != ".parquet":
        raise ValueError(f"`path` must end in .parquet, got {str(path)!r}")
    target = check_path(path, "an export")
    rows, damaged = CurveStore(Workspace(home).curves).query_all()
    table = pa.Table.from_pylist([_record(row) for row in rows])
    partial = target.with_name(f".{target.name}.part")
    with explain_os_errors(target, "export the curves"):
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, partial, compression="zstd")
        partial.replace(target)
    return f"{len(rows)} curves in {target}{_left_out(damaged)}"


def _left_out(damaged: Sequence[Path]) -> str:
    if not damaged:
        return ""
    first = f"the first is `{damaged[0]}`"
    return f"; {len(damaged)} damaged, left out: {first}. An evaluation that needs one computes it again"


def _record(row: CurveRow) -> dict[str, object]:
    return {
        "task": row.key.task,
        "task_name": row.labels.get("task_name", ""),
        "optimizer": row.key.optimizer,
        "role": row.labels.get("role", ""),
        "hyperparameters": json.dumps(row.key.hyperparameters, sort_keys=True),
        "horizon": row.key.horizon,
        "seed": row.key.seed,
        "seconds": row.seconds,
        "data": json.dumps(row.key.data, sort_keys=True),
        "curves_version": row.key.version,
        **{name: row.labels.get(name, "") for name in ("jax", "optax", "platform")},
        "step": row.step.tolist(),
        **{f"loss_{split}": values.tolist() for split, values in row.losses.items()},
    }
