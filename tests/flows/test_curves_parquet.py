"""Curves in a file: what is exported and imported again is the same curve, and nothing else gets in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.evaluation.parquet import export_curves, import_curves
from flows.evaluation.versions import CURVES_VERSION
from storage.curves import IMPORTED, CurveKey, CurveRow, CurveStore
from storage.errors import StorageError
from storage.workspace import Workspace

LABELS = {"task_name": "mlp", "role": "adam", "jax": "0.10.2", "optax": "0.2.8", "platform": "cpu"}


def curve(seed: int, *, version: int = CURVES_VERSION, loss: float = 2.0) -> CurveRow:
    """A curve whose float32 losses have no short decimal form, and one of which is not a number."""
    key = CurveKey("abc", "adam", 20, seed, {"learning_rate": 0.1}, {"mnist": "5f"}, version)
    losses = {
        "train": np.asarray([loss / 3, np.nan], np.float32),
        "outer_valid": np.asarray([loss / 7, np.inf], np.float32),
        "test": np.asarray([loss / 9, -np.inf], np.float32),
    }
    return CurveRow(key, np.asarray([0, 20]), losses, 1.5, LABELS)


def store_of(home: Path) -> CurveStore:
    return CurveStore(Workspace(home).curves)


def exported(tmp_path: Path, *rows: CurveRow) -> Path:
    for row in rows:
        store_of(tmp_path / "there").append(row)
    export_curves(tmp_path / "there", tmp_path / "out" / "curves.parquet")
    return tmp_path / "out" / "curves.parquet"


def test_export_has_a_row_per_curve(tmp_path: Path) -> None:
    path = exported(tmp_path, *(curve(seed) for seed in range(3)))
    table = pq.read_table(path).to_pylist()
    assert sorted(row["seed"] for row in table) == [0, 1, 2]
    assert table[0]["step"] == [0, 20]
    assert table[0]["loss_train"][0] == np.float32(2 / 3)
    assert np.isnan(table[0]["loss_train"][1])
    with pytest.raises(ValueError, match=r"must end in \.parquet"):
        export_curves(tmp_path / "there", tmp_path / "curves.csv")


def test_rows_are_sorted_by_what_was_computed(tmp_path: Path) -> None:
    """Not that of the store: runs of a task stand together, which zstd makes less of."""
    keys = [(task, steps, seed) for task in ("abc", "xyz") for steps in (20, 200) for seed in (0, 1, 2)]
    rows = []
    for task, steps, seed in reversed(keys):
        row = curve(seed)
        rows.append(replace(row, key=replace(row.key, task=task, horizon=steps)))
    table = pq.read_table(exported(tmp_path, *rows)).to_pylist()
    assert [(row["task"], row["horizon"], row["seed"]) for row in table] == keys
    stored = [row.key for row in store_of(tmp_path / "there").query_all()[0]]
    assert [(key.task, key.horizon, key.seed) for key in stored] != keys


def test_rounded_losses_are_near_and_the_file_and_its_curves_say_so(tmp_path: Path) -> None:
    fewer = replace(curve(1), losses={s: v for s, v in curve(1).losses.items() if s != "outer_valid"})
    for row in (curve(0), fewer):
        store_of(tmp_path / "there").append(row)
    path = tmp_path / "curves.parquet"
    export_curves(tmp_path / "there", path, keepbits=12)
    import_curves(tmp_path / "here", path)
    found = store_of(tmp_path / "here").get(curve(0).key)
    assert found is not None
    assert found.labels[IMPORTED] == "curves.parquet (losses rounded to 12 bits)"
    for split, exact in curve(0).losses.items():
        rounded = found.losses[split].astype(np.float32)
        assert abs(rounded[0] / exact[0] - 1.0) <= 2.0**-13
        assert rounded[0] != exact[0]
        assert int(rounded[:1].view(np.uint32)[0]) % 2**11 == 0  # the other 11 bits are zeros
        np.testing.assert_array_equal(rounded[1], exact[1])  # NaN and infinities
    lacking = store_of(tmp_path / "here").get(curve(1).key)
    assert lacking is not None
    assert set(lacking.losses) == {"train", "test"}
    for bits in (0, 24):
        with pytest.raises(ValueError, match=f"from 1 to 23, got {bits}"):
            export_curves(tmp_path / "there", path, keepbits=bits)


def test_an_imported_curve_is_the_exported_one_and_says_so(tmp_path: Path) -> None:
    path = exported(tmp_path, curve(0), curve(1))
    assert import_curves(tmp_path / "here", path) == f"2 curves in {path}: 2 added"
    for seed in range(2):
        found = store_of(tmp_path / "here").get(curve(seed).key)
        assert found is not None
        assert found.key == curve(seed).key
        assert found.labels == {**LABELS, IMPORTED: "curves.parquet"}
        assert found.seconds == 1.5
        np.testing.assert_array_equal(found.step, [0, 20])
        assert set(found.losses) == {"train", "outer_valid", "test"}
        for split, values in curve(seed).losses.items():
            np.testing.assert_array_equal(found.losses[split], values.astype(np.float64))


@pytest.mark.parametrize("lacks", [0, 1])
def test_a_split_that_only_some_have_is_kept_whichever_is_first(tmp_path: Path, lacks: int) -> None:
    """As where curves were imported without it, and others computed with it."""
    rows = [curve(0), curve(1)]
    rows[lacks].losses.pop("outer_valid")
    import_curves(tmp_path / "here", exported(tmp_path, *rows))
    for row in rows:
        found = store_of(tmp_path / "here").get(row.key)
        assert found is not None
        assert set(found.losses) == set(row.losses)
        for split, values in row.losses.items():
            np.testing.assert_array_equal(found.losses[split], values.astype(np.float64))


def test_losses_keep_all_their_digits(tmp_path: Path) -> None:
    """In single precision, as workers compute them, or in double."""
    single, double = curve(0), curve(1)
    double.losses["train"] = np.asarray([2 / 3, np.pi])
    import_curves(tmp_path / "here", exported(tmp_path, single, double))
    for row in (single, double):
        found = store_of(tmp_path / "here").get(row.key)
        assert found is not None
        for split, values in row.losses.items():
            np.testing.assert_array_equal(found.losses[split], values.astype(np.float64))
    types = dict(
        zip((schema := pq.read_schema(tmp_path / "out" / "curves.parquet")).names, schema.types, strict=True)
    )
    assert (types["loss_train"], types["loss_outer_valid"]) == (
        pa.list_(pa.float64()),
        pa.list_(pa.float32()),
    )


def test_a_split_that_no_report_reads_can_be_left_out(tmp_path: Path) -> None:
    store_of(tmp_path / "there").append(curve(0))
    path = tmp_path / "small.parquet"
    export_curves(tmp_path / "there", path, without=["outer_valid"])
    assert "loss_outer_valid" not in pq.read_schema(path).names
    import_curves(tmp_path / "here", path)
    found = store_of(tmp_path / "here").get(curve(0).key)
    assert found is not None
    assert set(found.losses) == {"train", "test"}
    with pytest.raises(ValueError, match="`without` must not have test, train"):
        export_curves(tmp_path / "there", path, without=["train", "test"])
    with pytest.raises(ValueError, match=r"outer_valid, test, train; got \['step'\]"):
        export_curves(tmp_path / "there", path, without=["step"])
    assert path.is_file()


def test_what_is_stored_stays(tmp_path: Path) -> None:
    path = exported(tmp_path, curve(0), curve(1))
    store_of(tmp_path / "here").append(curve(0, loss=5.0))
    message = import_curves(tmp_path / "here", path)
    assert "1 added" in message
    assert "1 stored before" in message
    found = store_of(tmp_path / "here").get(curve(0).key)
    assert found is not None
    assert found.losses["train"][0] == np.float32(5 / 3)
    assert IMPORTED not in found.labels


def test_curves_of_another_version_are_left_out(tmp_path: Path) -> None:
    path = exported(tmp_path, curve(0), curve(1, version=CURVES_VERSION + 1))
    message = import_curves(tmp_path / "here", path)
    assert "1 added" in message
    assert f"1 left out (version {CURVES_VERSION + 1} of the code, here {CURVES_VERSION})" in message
    assert len(store_of(tmp_path / "here").query()) == 1


def test_a_file_that_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no file"):
        import_curves(tmp_path / "here", tmp_path / "absent.parquet")
    with pytest.raises(ValueError, match=r"must end in \.parquet"):
        import_curves(tmp_path / "here", tmp_path / "curves.csv")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(StorageError, match="is not parquet"):
        import_curves(tmp_path / "here", tmp_path / "text.parquet")
    pq.write_table(pa.table({"task": ["abc"], "seed": [0]}), tmp_path / "other.parquet")
    with pytest.raises(StorageError, match="lacks the columns curves_version, data, horizon"):
        import_curves(tmp_path / "here", tmp_path / "other.parquet")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("loss_test", None),
        ("hyperparameters", "{"),
        ("hyperparameters", "[1]"),
        ("seed", None),
        ("step", [0]),
        ("step", None),
    ],
)
def test_one_bad_row_and_nothing_is_added(tmp_path: Path, column: str, value: object) -> None:
    path = exported(tmp_path, curve(0), curve(1))
    records = pq.read_table(path).to_pylist()
    records[1][column] = value
    pq.write_table(pa.Table.from_pylist(records), path)
    with pytest.raises(StorageError, match=r"Export it again\."):
        import_curves(tmp_path / "here", path)
    assert store_of(tmp_path / "here").query() == []
