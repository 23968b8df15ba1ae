"""Stored learning curves: once per key, bit for bit, and damaged ones count as never computed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from storage.curves import CurveKey, CurveRow, CurveStore
from storage.errors import StorageError


@pytest.fixture
def store(tmp_path: Path) -> CurveStore:
    return CurveStore(tmp_path / "curves.zarr")


def row(seed: int = 0, optimizer: str = "adam", rate: float = 0.1) -> CurveRow:
    rng = np.random.default_rng(seed)
    losses = {split: rng.normal(size=5).astype(np.float32) for split in ("train", "inner_valid", "test")}
    losses["test"][3:] = [np.nan, np.inf]
    key = CurveKey("task-1", optimizer, 400, seed, {"learning_rate": rate, "schedule": "cosine"})
    return CurveRow(key, np.arange(0, 500, 100), losses, 1.25, {"task_name": "mlp wide"})


def test_a_row_comes_back_bit_for_bit(store: CurveStore) -> None:
    assert store.append(row())
    read = CurveStore(store.path).get(row().key)
    assert read is not None
    assert (read.key, read.seconds, read.labels) == (row().key, 1.25, {"task_name": "mlp wide"})
    np.testing.assert_array_equal(read.step, row().step)
    assert {k: v.tobytes() for k, v in read.losses.items()} == {
        k: v.tobytes() for k, v in row().losses.items()
    }


def test_each_key_is_stored_once(store: CurveStore) -> None:
    assert not store.has(row().key)
    assert store.append(row())
    assert store.has(row().key)
    assert not store.append(replace(row(), seconds=9.0))
    assert [r.seconds for r in store.query()] == [1.25]


def test_every_part_of_the_key_counts_and_the_order_of_settings_does_not() -> None:
    key = row().key
    others = [
        replace(key, task="task-2"),
        replace(key, optimizer="adamw"),
        replace(key, horizon=401),
        replace(key, seed=1),
        replace(key, hyperparameters={**key.hyperparameters, "learning_rate": 0.2}),
        replace(key, data={"cifar10": "0123456789abcdef"}),
        replace(key, data={"cifar10": "fedcba9876543210"}),
        replace(key, version=1),
    ]
    assert len({k.digest() for k in (key, *others)}) == 9
    turned = replace(key, hyperparameters=dict(reversed(key.hyperparameters.items())))
    assert turned.digest() == key.digest()
    assert key.digest() == "c0dc3fcfb0996935c98faffb7d80020b"  # the same in every process and version


def test_what_made_a_curve_comes_back_and_earlier_keys_are_read(store: CurveStore) -> None:
    key = replace(row().key, data={"cifar10": "0123456789abcdef"}, version=3)
    store.append(replace(row(), key=key))
    store.append(row())  # as an earlier version stored it
    found = {each.key.version: each.key for each in store.query()}
    assert found == {0: row().key, 3: key}
    assert found[3].data == key.data
    assert store.has(key)


def test_query_filters_by_key_and_label(store: CurveStore) -> None:
    for seed in (0, 1):
        for optimizer in ("adam", "pacer"):
            store.append(row(seed, optimizer))
    assert len(store.query()) == 4
    assert {r.key.seed for r in store.query(optimizer="pacer")} == {0, 1}
    assert [r.key.optimizer for r in store.query(optimizer="adam", seed=1, task_name="mlp wide")] == ["adam"]
    assert store.query(task_name="other") == []
    assert store.query(no_such_field=1) == []


def test_concurrent_appends_of_one_key_store_it_once(store: CurveStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        new = list(pool.map(lambda _: CurveStore(store.path).append(row()), range(8)))
    assert sum(new) == 1
    assert len(store.query()) == 1


def test_a_damaged_row_is_absent_and_can_be_stored_again(store: CurveStore) -> None:
    store.append(row(0))
    store.append(row(1))
    folder = store._folder(row(0).key)
    (folder / "float32" / "0").write_bytes(b"\0" * 60)
    assert store.get(row(0).key) is None
    assert [r.key.seed for r in store.query()] == [1]
    (folder / "manifest.json").unlink()
    assert not store.has(row(0).key)
    assert store.append(row(0))
    assert store.has(row(0).key)
    assert len(store.query()) == 2


@pytest.mark.parametrize("file", ["float32/0", "manifest.json"])
def test_a_truncated_row_is_replaced_by_the_next_that_is_computed(store: CurveStore, file: str) -> None:
    store.append(row(0))
    store.append(row(1))
    path = store._folder(row(0).key) / file
    path.write_bytes(path.read_bytes()[:-1])
    assert not store.has(row(0).key)
    rows, damaged = store.query_all()
    assert ([r.key.seed for r in rows], damaged) == ([1], [store._folder(row(0).key)])
    assert store.append(row(0))
    assert store.get(row(0).key) is not None
    assert not store.append(row(0))
    assert store.query_all()[1] == []


def test_lengths_must_agree(store: CurveStore) -> None:
    with pytest.raises(ValueError, match=r"one shape \[P\].*'test': \(2,\)"):
        store.append(replace(row(), losses={"test": np.zeros(2)}))
    with pytest.raises(ValueError, match="one shape"):
        store.append(replace(row(), step=np.zeros((5, 1)), losses={}))


def test_a_file_in_place_of_the_folder(store: CurveStore) -> None:
    store.path.write_text("")
    with pytest.raises(StorageError, match="store a curve"):
        store.append(row())
