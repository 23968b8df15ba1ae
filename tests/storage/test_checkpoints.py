"""The contract of checkpoints: what is read is what was written, or an error says what to do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from storage import files
from storage.checkpoints import CheckpointInfo, CheckpointStore, process_owner
from storage.errors import (
    CheckpointExistsError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    FingerprintMismatchError,
    ReadOnlyStorageError,
    StorageFullError,
    TreeMismatchError,
    UnsafePathError,
)

Trees = Callable[[int], dict[str, Any]]


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "flipped": flip_a_byte,
    "truncated": truncate,
    "missing": Path.unlink,
}
FILES = ["float32/0", "float32/zarr.json", "uint32/0", "zarr.json", "manifest.json"]


class TestRoundTrip:
    def test_restored_against_templates(self, store: CheckpointStore, trees: Trees) -> None:
        info = store.save("short", 7, trees(7), {"architecture": {"a": 1}, "note": "μ"})
        loaded = store.load(info, templates=trees(0))
        assert loaded.metadata == {"architecture": {"a": 1}, "note": "μ"}
        np.testing.assert_array_equal(loaded.trees["theta"]["layer"]["w"], trees(7)["theta"]["layer"]["w"])
        assert int(loaded.trees["step"]) == 7
        assert bool(jnp.all(jax.random.key_data(loaded.trees["key"]) == jax.random.key_data(trees(7)["key"])))

    def test_flat_without_templates_and_from_a_bare_path(self, store: CheckpointStore, trees: Trees) -> None:
        info = store.save("short", 7, trees(7), {})
        loaded = CheckpointStore(store.root.parent / "elsewhere").load(str(info.path))
        assert list(loaded.trees["theta"]) == ["['layer']['b']", "['layer']['w']"]
        assert (loaded.info.phase, loaded.info.outer_step) == ("short", 7)

    def test_digest_tells_equal_arrays_whatever_the_metadata(
        self, store: CheckpointStore, trees: Trees
    ) -> None:
        a, b, c = (
            store.save(*args)
            for args in (("a", 1, trees(1), {"x": 1}), ("b", 1, trees(1), {}), ("c", 1, trees(2), {}))
        )
        digests = [store.load(info).digest for info in (a, b, c)]
        assert digests[0] == digests[1] != digests[2]

    def test_a_copied_folder_is_a_checkpoint(
        self, saved: list[CheckpointInfo], store: CheckpointStore, tmp_path: Path
    ) -> None:
        copy = shutil.copytree(saved[0].path, tmp_path / "mine")
        assert store.load(copy).info.outer_step == 10


class TestDamage:
    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("kind", DAMAGE)
    def test_refused_by_name_and_the_previous_good_one_offered(
        self, kind: str, name: str, saved: list[CheckpointInfo], store: CheckpointStore
    ) -> None:
        DAMAGE[kind](saved[2].path / name)
        with pytest.raises(CorruptCheckpointError) as caught:
            store.load(saved[2])
        message = str(caught.value)
        assert f"`{name}`" in message
        assert str(saved[2].path) in message
        assert f"use `{saved[1].path}`" in message

    def test_the_offer_skips_other_damaged_ones(
        self, saved: list[CheckpointInfo], store: CheckpointStore
    ) -> None:
        flip_a_byte(saved[1].path / "float32/0")
        truncate(saved[2].path / "float32/0")
        with pytest.raises(CorruptCheckpointError, match="step 10"):
            store.load(saved[2].path)

    def test_latest_good_skips_and_records(self, saved: list[CheckpointInfo], store: CheckpointStore) -> None:
        shutil.rmtree(saved[2].path / "float32")
        assert store.latest("short") == saved[2]
        assert store.latest_good("short") == saved[1]
        assert "step 30" in str(store.skipped[0])

    def test_none_good(self, saved: list[CheckpointInfo], store: CheckpointStore) -> None:
        for info in saved:
            (info.path / "manifest.json").write_text("{")
        assert store.latest_good("short") is None
        with pytest.raises(CorruptCheckpointError, match="no good one"):
            store.load(saved[2])

    def test_a_damaged_one_is_replaced_by_saving_again(
        self, saved: list[CheckpointInfo], store: CheckpointStore, trees: Trees
    ) -> None:
        before = store.load(saved[2]).digest
        flip_a_byte(saved[2].path / "float32/0")
        store.save("short", 30, trees(30), {})
        assert store.load(saved[2]).digest == before

    def test_a_manifest_cannot_reach_outside(
        self, saved: list[CheckpointInfo], store: CheckpointStore
    ) -> None:
        path = saved[2].path / "manifest.json"
        record = json.loads(path.read_text())
        record["manifest"]["files"]["../../secret"] = [1, "0" * 64]
        body = json.dumps(record["manifest"], sort_keys=True, separators=(",", ":")).encode()
        record["sha256"] = hashlib.sha256(body).hexdigest()
        path.write_text(json.dumps(record))
        with pytest.raises(CorruptCheckpointError, match="outside the folder"):
            store.load(saved[2])


class TestInterruption:
    @pytest.mark.parametrize("function", ["rename", "fsync"])
    @pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "I/O error")])
    def test_a_failed_save_leaves_the_previous_and_nothing_else(
        self,
        function: str,
        error: BaseException,
        store: CheckpointStore,
        trees: Trees,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        first = store.save("short", 1, trees(1), {})

        def fail(*_: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail)
            with pytest.raises((KeyboardInterrupt, OSError, files.StorageError)):
                store.save("short", 2, trees(2), {})
        assert os.listdir(first.path.parent) == [first.path.name]
        assert store.latest_good("short") == first

    def test_what_a_killed_process_left_is_ignored_and_removed(
        self, store: CheckpointStore, trees: Trees, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = store.save("short", 1, trees(1), {})
        with monkeypatch.context() as patch:  # killed: no cleaning up, and the process is gone
            patch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(SystemExit()))
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            patch.setattr(os, "getpid", lambda: 2**22 + 1)  # above Linux's largest process id
            with pytest.raises(SystemExit):
                store.save("short", 2, trees(2), {})
        assert len(os.listdir(first.path.parent)) == 2
        assert store.list("short") == [first]
        store.save("short", 3, trees(3), {})
        assert sorted(os.listdir(first.path.parent)) == ["step-0000000001", "step-0000000003"]

    def test_another_running_save_is_left_alone(self, store: CheckpointStore, trees: Trees) -> None:
        folder = store.save("short", 1, trees(1), {}).path.parent
        (folder / files.temporary_name("tmp")).mkdir()
        store.save("short", 2, trees(2), {})
        assert len(os.listdir(folder)) == 3

    @pytest.mark.parametrize(
        ("number", "expected"),
        [
            (28, StorageFullError),
            (122, StorageFullError),
            (30, ReadOnlyStorageError),
            (13, ReadOnlyStorageError),
        ],
    )
    def test_full_or_read_only_disk(
        self,
        number: int,
        expected: type[Exception],
        store: CheckpointStore,
        trees: Trees,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        first = store.save("short", 1, trees(1), {})

        def fail(*_: Any, **__: Any) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(files, "write_file", fail)
            with pytest.raises(expected, match="cannot save checkpoint 'short' step 2") as caught:
                store.save("short", 2, trees(2), {})
        assert str(first.path.parent) in str(caught.value)
        assert "KEIRIN_HOME" in str(caught.value)
        assert os.listdir(first.path.parent) == [first.path.name]


class TestKeeping:
    def test_a_good_one_is_never_overwritten(
        self, saved: list[CheckpointInfo], store: CheckpointStore, trees: Trees
    ) -> None:
        before = store.load(saved[2]).digest
        with pytest.raises(CheckpointExistsError, match="discard"):
            store.save("short", 30, trees(31), {})
        assert store.load(saved[2]).digest == before
        assert store.save("short", 30, trees(30), {"now": "other metadata"}) == saved[2]  # same arrays
        assert store.load(saved[2]).metadata["fingerprint"] == "abc"

    def test_prunes_all_but_the_newest_and_the_pinned(self, store: CheckpointStore, trees: Trees) -> None:
        store = CheckpointStore(store.root, keep=2)
        for step in range(5):
            info = store.save("short", step, trees(step), {})
            if step == 1:
                store.pin(info)
        assert [info.outer_step for info in store.list("short")] == [1, 3, 4]
        store.unpin(store.info("short", 1))
        store.prune("short")
        assert [info.outer_step for info in store.list()] == [3, 4]
        store.discard(store.info("short", 4))
        assert store.latest("short") == store.info("short", 3)

    def test_it_is_kept_until_every_owner_has_let_go(self, store: CheckpointStore, trees: Trees) -> None:
        store = CheckpointStore(store.root, keep=1)
        info = store.save("short", 1, trees(1), {})
        store.pin(info)
        store.pin(info, "follow")
        store.save("short", 2, trees(2), {})
        store.unpin(info)
        store.prune("short")
        assert [known.outer_step for known in store.list("short")] == [1, 2]
        store.unpin(info, "follow")
        store.prune("short")
        assert [known.outer_step for known in store.list("short")] == [2]
        with pytest.raises(UnsafePathError):
            store.pin(info, "../other")

    def test_a_process_keeps_it_as_long_as_it_runs(self, store: CheckpointStore, trees: Trees) -> None:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        running = process_owner("follow-0123abcd")
        store = CheckpointStore(store.root, keep=1)
        info = store.save("short", 1, trees(1), {})
        store.pin(info, f"{running.rpartition('-')[0]}-{ended.pid}")
        store.pin(info, running)
        store.save("short", 2, trees(2), {})
        assert [known.outer_step for known in store.list("short")] == [1, 2]
        store.unpin(info, running)
        store.prune("short")
        assert [known.outer_step for known in store.list("short")] == [2]
        store.pin(store.info("short", 2), f"follow-on-elsewhere-{ended.pid}")  # of it nothing is known here
        store.save("short", 3, trees(3), {})
        assert [known.outer_step for known in store.list("short")] == [2, 3]
        assert len(list(info.path.parent.glob("*.pin"))) == 1

    def test_phases_are_apart_and_steps_in_numeric_order(self, store: CheckpointStore, trees: Trees) -> None:
        for phase, step in (("b", 9), ("b", 10_000_000_000), ("a", 2)):
            store.save(phase, step, trees(step % 100), {})
        assert store.phases() == ["a", "b"]
        assert [(i.phase, i.outer_step) for i in store.list()] == [("a", 2), ("b", 9), ("b", 10_000_000_000)]
        assert store.latest("c") is None


class TestRefusals:
    def test_another_configuration(self, saved: list[CheckpointInfo], store: CheckpointStore) -> None:
        assert store.load(saved[0], fingerprint="abc").metadata["fingerprint"] == "abc"
        with pytest.raises(FingerprintMismatchError, match=r"'abc'.*'xyz'"):
            store.load(saved[0], fingerprint="xyz")

    def test_another_structure(self, saved: list[CheckpointInfo], store: CheckpointStore) -> None:
        with pytest.raises(TreeMismatchError, match=r"\['layer'\]\['b'\] is left over"):
            store.load(saved[0], templates={"theta": {"layer": {"w": jnp.ones((3, 4))}}})
        with pytest.raises(CheckpointNotFoundError, match=r"no tree 'thetas'.*'theta'"):
            store.load(saved[0], templates={"thetas": {}})

    def test_absent(self, saved: list[CheckpointInfo], store: CheckpointStore, tmp_path: Path) -> None:
        with pytest.raises(CheckpointNotFoundError, match="Did you mean 'step-0000000030'"):
            store.load(saved[2].path.with_name("step-0000000031"))
        with pytest.raises(CheckpointNotFoundError, match="name one of them"):
            store.load(saved[2].path.parent)
        with pytest.raises(CheckpointNotFoundError, match="not a checkpoint"):
            store.load(tmp_path)
        with pytest.raises(FileNotFoundError):
            store.load(store.info("short", 99))

    @pytest.mark.parametrize("phase", ["", "..", "a/b", ".hidden", "a\0b", "x" * 101])
    def test_names_that_are_no_folder_names(self, phase: str, store: CheckpointStore) -> None:
        with pytest.raises(UnsafePathError, match="phase name"):
            store.save(phase, 1, {}, {})

    @pytest.mark.parametrize("value", [float("nan"), np.float32(1.0), {1, 2}])
    def test_metadata_that_is_not_json(self, value: Any, store: CheckpointStore) -> None:
        with pytest.raises((TypeError, ValueError), match="strict JSON"):
            store.save("short", 1, {}, {"bad": value})
        assert store.list() == []

    def test_arguments(self, store: CheckpointStore) -> None:
        with pytest.raises(ValueError, match="outer_step=-1"):
            store.save("short", -1, {}, {})
        with pytest.raises(ValueError, match="keep=0"):
            CheckpointStore(store.root, keep=0)
        with pytest.raises(UnsafePathError, match="local path"):
            CheckpointStore("s3://bucket/x")
