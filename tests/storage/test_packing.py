"""Packed arrays: equal when read back, legible with plain Zarr, and never silently incomplete."""

from __future__ import annotations

import asyncio
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import zarr

from storage import packing
from storage.files import write_folder
from storage.packing import pack, unpack

ARRAYS = {
    "a": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "scalar": np.array(3, np.int64)},
    "b": {
        "bf16": np.array([1.5, -2.0], ml_dtypes.bfloat16),
        "fp8": np.array([0.5], ml_dtypes.float8_e4m3fn),
        "big endian": np.array([1, 2], ">i4"),
        "strided": np.arange(12.0)[::3],
        "bool": np.array([True, False]),
        "complex": np.array([1 + 2j], np.complex64),
        "none": np.zeros((0, 2)),
    },
    "empty": {},
}


def test_arrays_come_back_with_value_shape_and_dtype() -> None:
    read = unpack(pack(ARRAYS))
    assert {name: list(tree) for name, tree in read.items()} == {name: list(t) for name, t in ARRAYS.items()}
    for name, tree in ARRAYS.items():
        for path, array in tree.items():
            got = read[name][path]
            assert (got.shape, got.dtype) == (array.shape, array.dtype.newbyteorder("<"))
            assert got.tobytes() == array.astype(got.dtype).tobytes()


def test_a_thread_reads_and_writes_whether_or_not_its_event_loop_is_running() -> None:
    async def within() -> object:
        return unpack(pack(ARRAYS))

    with ThreadPoolExecutor(2) as threads:
        got = [asyncio.run(within()), *threads.map(lambda _: unpack(pack(ARRAYS)), range(4))]
    for read in got:
        np.testing.assert_array_equal(read["a"]["w"], ARRAYS["a"]["w"])


def test_arrays_longer_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_MAX_CHUNK_BYTES", 64)
    long = np.arange(50, dtype=np.float32)
    files = pack({"t": {"long": long}})
    assert sum(name.startswith("float32/") for name in files) == 5  # 16 numbers each, and zarr.json
    np.testing.assert_array_equal(unpack(files)["t"]["long"], long)
    del files["float32/2"]
    with pytest.raises(ValueError, match="chunks"):
        unpack(files)


def test_plain_zarr_reads_the_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "packed", pack(ARRAYS))
    group = zarr.open_group(tmp_path / "packed", mode="r")
    entry = json.loads(json.dumps(group.attrs.asdict()))["arrays"]["a"]["w"]
    flat = np.asarray(group[entry["dtype"]])[entry["start"] :][: math.prod(entry["shape"])]
    np.testing.assert_array_equal(flat.reshape(entry["shape"]), ARRAYS["a"]["w"])


@pytest.mark.parametrize("change", [{"start": 5}, {"shape": [4, 3]}, {"start": -1}])
def test_an_index_that_reaches_outside_is_refused(change: dict[str, object]) -> None:
    files = pack({"t": {"w": np.arange(6, dtype=np.float32)}})
    root = json.loads(files["zarr.json"])
    root["attributes"]["arrays"]["t"]["w"].update(change)
    files["zarr.json"] = json.dumps(root).encode()
    with pytest.raises(ValueError, match="outside"):
        unpack(files)
