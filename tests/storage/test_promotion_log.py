"""The record of promotions: whole whatever kills its writer, and one writer at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from storage.errors import StorageError
from storage.promotion_log import PromotionLog
from storage.workspace import Workspace

SPAWN = multiprocessing.get_context("spawn")


def nothing(_: dict[str, Any]) -> None:
    pass


@pytest.fixture
def log(tmp_path: Path) -> PromotionLog:
    return PromotionLog(Workspace(tmp_path))


def append(log: PromotionLog, **entry: Any) -> int:
    with log.exclusive(nothing):
        return log.append(entry, nothing)


def test_entries_are_numbered_and_stay(log: PromotionLog) -> None:
    assert (log.entries(), log.pending()) == ([], None)
    assert [append(log, version=version) for version in (4, 7)] == [1, 2]
    before = (log.folder / "00000001.json").read_bytes()
    append(log, version=9)
    assert (log.folder / "00000001.json").read_bytes() == before
    assert log.entries() == [{"version": 4}, {"version": 7}, {"version": 9}]


def test_what_could_not_be_done_is_not_recorded(log: PromotionLog) -> None:
    def fail(_: dict[str, Any]) -> None:
        raise StorageError("no")

    with log.exclusive(nothing), pytest.raises(StorageError, match="no"):
        log.append({"version": 1}, fail)
    assert (log.entries(), log.pending()) == ([], None)


def _killed_while_moving(root: str, moves: bool) -> None:
    log = PromotionLog(Workspace(root))

    def move(entry: dict[str, Any]) -> None:
        if moves:
            (log.folder / "alias").write_text(str(entry["version"]))
        os.kill(os.getpid(), signal.SIGKILL)

    with log.exclusive(nothing):
        log.append({"version": 2}, move)


@pytest.mark.parametrize("moves", [False, True], ids=["before the move", "after the move"])
def test_the_next_one_finishes_what_a_killed_process_began(log: PromotionLog, moves: bool) -> None:
    append(log, version=1)
    child = SPAWN.Process(target=_killed_while_moving, args=(str(log.folder.parent), moves))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert log.entries() == [{"version": 1}]
    assert log.pending() == {"version": 2}
    assert (log.folder / "alias").exists() is moves

    moved = []
    with log.exclusive(moved.append):
        assert moved == [{"version": 2}]
        assert log.entries() == [{"version": 1}, {"version": 2}]
        assert log.append({"version": 3}, nothing) == 3
    assert log.pending() is None


def test_what_can_no_longer_be_finished_is_dropped_once_it_has_been_said(log: PromotionLog) -> None:
    child = SPAWN.Process(target=_killed_while_moving, args=(str(log.folder.parent), False))
    child.start()
    child.join(60)

    def fail(_: dict[str, Any]) -> None:
        raise StorageError("no such version")

    with pytest.raises(StorageError, match="no such version"), log.exclusive(fail):
        pass
    assert append(log, version=5) == 1


def _slow_append(root: str, go: Any, version: int) -> None:
    log = PromotionLog(Workspace(root))
    go.wait(60)
    for _ in range(3):
        with log.exclusive(nothing):
            seen = len(log.entries())
            time.sleep(0.02)  # another process that was let in would now see the same
            log.append({"version": version, "seen": seen}, nothing)


def test_processes_take_turns(log: PromotionLog) -> None:
    go = SPAWN.Event()
    children = [SPAWN.Process(target=_slow_append, args=(str(log.folder.parent), go, v)) for v in (1, 2)]
    for child in children:
        child.start()
    go.set()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    entries = log.entries()
    assert sorted(entry["version"] for entry in entries) == [1, 1, 1, 2, 2, 2]
    assert [entry["seen"] for entry in entries] == list(range(6))


def test_a_record_that_is_not_whole_is_refused(log: PromotionLog) -> None:
    for version in (1, 2):
        append(log, version=version)
    (log.folder / "00000001.json").unlink()
    with pytest.raises(StorageError, match="not whole"):
        log.entries()
    (log.folder / "00000001.json").write_text("[")
    with pytest.raises(StorageError, match="00000001"):
        log.entries()
