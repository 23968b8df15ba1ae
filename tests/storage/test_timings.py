"""The log of timings: in order, safe to append to concurrently, and trimmed where it was cut short."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from storage import timings
from storage.errors import StorageError
from storage.timings import TimingStore


@pytest.fixture
def store(tmp_path: Path) -> TimingStore:
    return TimingStore(tmp_path / "timings.zarr")


def record(index: int) -> dict[str, Any]:
    return {
        "config_fingerprint": f"f{index}",
        "seconds_per_step": index / 7,
        "valid": True,
        "reason": "μ" * index,
    }


def test_records_come_back_in_order(store: TimingStore) -> None:
    assert store.read() == []
    store.append([])
    assert not store.path.exists()
    for start in (0, 3, 4):
        store.append([record(i) for i in range(start, {0: 3, 3: 4, 4: 9}[start])])
    assert TimingStore(store.path).read() == [record(i) for i in range(9)]
    assert store.fingerprints() == {f"f{i}" for i in range(9)}


def test_concurrent_appends_lose_nothing(store: TimingStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: TimingStore(store.path).append([record(i)]), range(12)))
    assert store.fingerprints() == {f"f{i}" for i in range(12)}


@pytest.mark.parametrize("cut", ["only bytes", "ends grown but not written", "ends beyond the bytes"])
def test_a_torn_append_is_trimmed_and_overwritten(cut: str, store: TimingStore) -> None:
    store.append([record(0), record(1)])
    group = zarr.open_group(store.path, mode="r+")
    size = group["records"].shape[0]
    if cut == "only bytes":
        group["records"].resize((size + 5,))
    else:
        group["ends"].resize((4,))
        if cut == "ends beyond the bytes":
            group["ends"][2] = size + 1000
    assert store.read() == [record(0), record(1)]
    store.append([record(2)])
    assert store.read() == [record(0), record(1), record(2)]


def test_a_kill_between_the_two_writes(store: TimingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.append([record(0)])
    write, calls = timings._write_tail, []

    def killed(array: Any, start: int, values: np.ndarray) -> None:
        calls.append(start)
        if len(calls) == 2:
            raise SystemExit
        write(array, start, values)

    with monkeypatch.context() as patch:
        patch.setattr(timings, "_write_tail", killed)
        with pytest.raises(SystemExit):
            store.append([record(1)])
    assert store.read() == [record(0)]
    store.append([record(2)])
    assert store.read() == [record(0), record(2)]


def test_a_creation_that_was_killed(store: TimingStore) -> None:
    zarr.open_group(store.path, mode="a")
    assert store.read() == []
    store.append([record(0)])
    assert store.read() == [record(0)]


def test_overwritten_bytes_are_reported(store: TimingStore) -> None:
    store.append([record(0)])
    zarr.open_group(store.path, mode="r+")["records"][3:9] = np.full(6, 255, np.uint8)
    with pytest.raises(StorageError, match="Remove that folder"):
        store.read()


def test_what_is_not_json_is_refused_whole(store: TimingStore) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.append([record(0), {"seconds": float("nan")}])
    assert store.read() == []
