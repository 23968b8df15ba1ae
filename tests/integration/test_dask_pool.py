"""The pool on real worker processes: order, affinity, killed workers, lost schedulers, clean ends."""

from __future__ import annotations

import gc
import inspect
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import distributed.worker
import numpy as np
import pytest

from curriculum.work_stream import Finished
from flows.errors import SchedulerUnreachableError, WorkUnitKilledError, WorkUnitTimeoutError
from flows.settings import RuntimeSettings
from flows.workers.cluster import start_cluster, worker_pids
from flows.workers.pool import DaskWorkerPool
from flows.workers.startup import LOST_HEARTBEAT
from tests.support.dask_processes import scheduler_process

EIGHT = [(number,) for number in range(8)]
pytestmark = pytest.mark.integration
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import a test module


def describe_worker(payload: int) -> dict[str, Any]:
    names = ("JAX_PLATFORMS", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "OMP_NUM_THREADS")
    log = logging.getLogger("distributed.worker")
    record = log.makeRecord(log.name, logging.ERROR, __file__, 1, f"{LOST_HEARTBEAT}.", (), None)
    process = {"pid": os.getpid(), "group": os.getpgrp(), "collects_after": gc.get_threshold()[0]}
    process["reports_a_lost_heartbeat"] = bool(log.filter(record))
    return process | {name: os.environ.get(name) for name in names}


def slow_square(number: int, folder: str) -> int:
    Path(folder, f"{os.getpid()}").touch()
    time.sleep(0.1)
    return number * number


def die_once(number: int, folder: str) -> int:
    """Kills its own worker the first time that it meets an odd payload."""
    marker = Path(folder, f"died-{number}")
    if number == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die_always(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(payload: int) -> None:
    raise ValueError(f"no such thing as {payload}")


def total_of(theta: dict[str, np.ndarray]) -> float:
    return float(theta["w"].sum())


def sleep_for(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> RuntimeSettings:
    return RuntimeSettings(home=tmp_path_factory.mktemp("home"), num_workers=2, memory_limit="2GiB")


@pytest.fixture(scope="module")
def pool(settings: RuntimeSettings) -> Iterator[DaskWorkerPool]:
    with DaskWorkerPool.open(settings) as pool:
        yield pool


def test_results_come_in_the_order_of_the_payloads(pool: DaskWorkerPool, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    payloads = [(number, str(tmp_path)) for number in range(6)]
    results = pool.run_all(slow_square, payloads, on_result=lambda *pair: seen.append(pair))
    assert results == [0, 1, 4, 9, 16, 25]
    assert sorted(seen) == list(enumerate(results))
    assert len(list(tmp_path.iterdir())) == 2  # both workers had their share


def test_nothing_to_do_is_no_error(pool: DaskWorkerPool) -> None:
    assert pool.run_all(sleep_for, []) == []


def test_workers_own_their_cores_and_left_the_process_group(
    pool: DaskWorkerPool, settings: RuntimeSettings
) -> None:
    found = pool.run_all(describe_worker, [(0,)])[0]
    assert found["group"] == found["pid"] != os.getpgrp()
    assert found["JAX_PLATFORMS"] == "cpu"
    assert found["OMP_NUM_THREADS"] == "1"
    assert "intra_op_parallelism_threads=1" in found["XLA_FLAGS"]
    assert found["JAX_COMPILATION_CACHE_DIR"] == str(settings.home / "compilation_cache")
    assert found["collects_after"] == 100_000
    assert not found["reports_a_lost_heartbeat"]
    assert LOST_HEARTBEAT in inspect.getsource(distributed.worker)  # or the filter looks for nothing


def priorities(_: int) -> dict[str, Any]:
    threads = [os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")]
    group = Path("/proc/self/autogroup")
    return {"threads": threads, "session": os.getsid(0), "group": group.read_text() if group.exists() else ""}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process has one priority")
def test_workers_that_give_way_do_so_with_every_thread(settings: RuntimeSettings) -> None:
    polite = settings.model_copy(update={"num_workers": 1, "niceness": 7})
    with DaskWorkerPool.open(polite) as pool:
        (found,) = pool.run_all(priorities, [(0,)])
    assert set(found["threads"]) == {7}
    assert len(found["threads"]) > 2
    assert found["session"] != os.getsid(0)
    assert not found["group"] or found["group"].endswith("nice 7\n")


def test_a_key_stays_with_its_worker(pool: DaskWorkerPool) -> None:
    keys = ["a", "b", "c", "d"] * 2
    first = [found["pid"] for found in pool.run_all(describe_worker, EIGHT, affinity=keys)]
    again = [found["pid"] for found in pool.run_all(describe_worker, EIGHT, affinity=keys)]
    assert first == again
    assert first[:4] == first[4:]
    assert sorted(first[:4].count(pid) for pid in set(first)) == [2, 2]


def test_the_costliest_start_first_and_workers_get_equal_sums(pool: DaskWorkerPool) -> None:
    """One key of cost 6 against three of 2: balanced by cost, not by number."""
    keys, costs = ["w", "x", "y", "z"], [2.0, 6.0, 2.0, 2.0]
    found = pool.run_all(describe_worker, EIGHT[:4], affinity=keys, costs=costs)
    pids = [one["pid"] for one in found]
    assert pids[0] == pids[2] == pids[3] != pids[1]
    finished: list[int] = []
    waits = [0.05, 0.4, 0.05, 0.05, 0.05, 0.05]
    pool.run_all(
        sleep_for, [(s,) for s in waits], costs=waits, on_result=lambda index, _: finished.append(index)
    )
    assert finished.index(1) > 0  # it started first, the short ones ran beside it
    assert finished[-1] == 1 or finished.index(1) >= 3
    with pytest.raises(ValueError, match="`costs` needs one entry per payload, got 1 for 2"):
        pool.run_all(sleep_for, [(0.0,), (0.0,)], costs=[1.0])


def test_fewer_keys_than_workers_leave_no_worker_idle(pool: DaskWorkerPool, tmp_path: Path) -> None:
    pool.run_all(slow_square, [(number, str(tmp_path)) for number in range(6)], affinity=["one"] * 6)
    assert len(list(tmp_path.iterdir())) == 2


def test_affinity_must_match_the_payloads(pool: DaskWorkerPool) -> None:
    with pytest.raises(ValueError, match="`affinity` needs one entry per payload, got 1 for 2"):
        pool.run_all(sleep_for, [(0.0,), (0.0,)], affinity=["a"])


def test_a_worker_killed_while_it_works_changes_no_result(pool: DaskWorkerPool, tmp_path: Path) -> None:
    payloads = [(number, str(tmp_path)) for number in range(8)]
    keys = [str(number % 4) for number in range(8)]
    assert pool.run_all(die_once, payloads, affinity=keys) == [number * number for number in range(8)]
    assert (tmp_path / "died-3").exists()


def test_a_unit_that_kills_every_worker_is_named(pool: DaskWorkerPool) -> None:
    with pytest.raises(WorkUnitKilledError, match=r"work unit 0 ended 4 workers") as caught:
        pool.run_all(die_always, [(0,)])
    assert caught.value.index == 0
    assert pool.run_all(sleep_for, [(0.0,), (0.01,)]) == [0.0, 0.01]  # the pool goes on


def test_an_error_of_a_unit_arrives_as_itself(pool: DaskWorkerPool) -> None:
    with pytest.raises(ValueError, match="no such thing as 7"):
        pool.run_all(refuse, [(7,)])


def test_a_unit_that_hangs_is_reported(pool: DaskWorkerPool) -> None:
    with pytest.raises(WorkUnitTimeoutError, match=r"no unit of work finished for 0\.2 s; 1 are left"):
        pool.run_all(sleep_for, [(3.0,)], timeout=0.2)


def test_leaving_the_iteration_cancels_the_rest(pool: DaskWorkerPool, tmp_path: Path) -> None:
    for _ in pool.imap_unordered(slow_square, [(number, str(tmp_path)) for number in range(200)]):
        break
    start = time.monotonic()
    assert pool.run_all(sleep_for, [(0.0,)]) == [0.0]
    assert time.monotonic() - start < 8  # 200 units would take ten seconds


def test_closing_twice_and_closing_in_mid_work_leaves_no_process(settings: RuntimeSettings) -> None:
    pool = DaskWorkerPool.open(settings.model_copy(update={"num_workers": 1}))
    iterator = pool.imap_unordered(sleep_for, [(0.0,), (60.0,)])
    next(iterator)
    pids = worker_pids(pool._cluster)
    start = time.monotonic()
    pool.close()
    pool.close()
    assert time.monotonic() - start < 12
    assert len(pids) == 1
    assert not Path(f"/proc/{pids[0]}").exists()
    with pytest.raises(RuntimeError, match="closed"):
        pool.run_all(sleep_for, [(0.0,)])


def test_only_workers_that_have_worked_are_replaced(settings: RuntimeSettings) -> None:
    with DaskWorkerPool.open(settings) as pool:
        first = set(worker_pids(pool._cluster))
        pool.refresh()
        assert set(worker_pids(pool._cluster)) == first
        pids = {seen["pid"] for seen in pool.run_all(describe_worker, EIGHT)}
        assert pids <= first
        pool.refresh()
        second = set(worker_pids(pool._cluster))
        assert len(second) == 2
        assert not first & second
        pool.refresh()
        assert set(worker_pids(pool._cluster)) == second
        assert {seen["pid"] for seen in pool.run_all(describe_worker, EIGHT)} <= second


def test_nobody_at_the_address_is_one_quick_error(settings: RuntimeSettings) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    start = time.monotonic()
    with pytest.raises(SchedulerUnreachableError, match="no Dask scheduler answers at tcp"):
        DaskWorkerPool.open(settings.model_copy(update={"scheduler": address, "connect_timeout": 1.0}))
    assert time.monotonic() - start < 10


def test_a_lost_scheduler_is_one_quick_error(settings: RuntimeSettings) -> None:
    with scheduler_process() as (address, server):
        pool = DaskWorkerPool.open(settings.model_copy(update={"scheduler": address}))
        iterator = pool.imap_unordered(sleep_for, [(0.0,), (60.0,), (60.0,)])
        assert next(iterator) == (0, 0.0)
        os.killpg(server.pid, signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(SchedulerUnreachableError, match="is gone"):
            next(iterator)
        assert time.monotonic() - start < 10
        pool.close()
        assert time.monotonic() - start < 15


def test_start_cluster_serves_the_dashboard_where_it_is_told(settings: RuntimeSettings) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    cluster = start_cluster(settings.model_copy(update={"num_workers": 1}), dashboard_port=port)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
    finally:
        cluster.close(timeout=10)


def test_a_unit_that_never_ends_is_given_up_and_its_worker_works_again(settings: RuntimeSettings) -> None:
    with DaskWorkerPool.open(settings.model_copy(update={"num_workers": 1})) as pool:
        stream = pool.stream()
        (worker,) = stream.workers()
        stream.start(worker, sleep_for, (1000.0,), tag=1)
        assert stream.wait(1.0) == []
        stream.give_up(1)
        deadline = time.monotonic() + 60
        while worker in stream.workers() and time.monotonic() < deadline:
            assert stream.wait(0.2) == []
        while not stream.workers() and time.monotonic() < deadline:
            stream.wait(0.2)
        stream.start(stream.workers()[0], sleep_for, (0.0,), tag=2)
        assert [finished.result for finished in stream.wait(60.0)] == [0.0]


def test_of_a_lost_worker_s_units_only_the_one_in_hand_had_begun(settings: RuntimeSettings) -> None:
    with DaskWorkerPool.open(settings.model_copy(update={"num_workers": 1})) as pool:
        stream = pool.stream()
        (worker,) = stream.workers()
        for tag in (4, 5):
            stream.start(worker, die_always, (tag,), tag=tag)
        finished: list[Finished] = []
        deadline = time.monotonic() + 60
        while len(finished) < 2 and time.monotonic() < deadline:
            finished += stream.wait(0.5)
        assert [(each.tag, each.had_begun) for each in finished] == [(4, True), (5, False)]
        assert all(each.failure for each in finished)


def test_what_units_have_in_common_is_sent_once(pool: DaskWorkerPool) -> None:
    """A theta of 2 MB and sixteen units: the scheduler sends it to one worker, which hands it on."""
    assert pool._cluster is not None
    theta = {"w": np.ones((512, 1024), np.float32)}
    comms = pool._cluster.scheduler.stream_comms

    def sent() -> int:
        pool.run_all(total_of, [({"w": np.ones(3)},)] * 2)  # whatever was still to be sent has been
        return pool._client.scheduler_comm.byte_count + sum(comm.byte_count for comm in comms.values())

    before = sent()
    totals = pool.run_all(total_of, [(theta,)] * 16, affinity=[str(number % 4) for number in range(16)])
    assert totals == [512 * 1024] * 16
    assert theta["w"].nbytes < (sent() - before) / 2 < 1.2 * theta["w"].nbytes


def test_large_arguments_are_sent_once_and_failures_are_results(pool: DaskWorkerPool) -> None:
    pool._client.wait_for_workers(2, timeout=60)  # one may have been killed by a test before
    stream = pool.stream()
    workers = stream.workers()
    theta = {"w": np.ones((512, 1024), np.float32)}
    for tag in range(4):
        stream.start(workers[tag % 2], total_of, (theta,), tag=tag)
    stream.start(workers[0], refuse, (7,), tag=9)
    finished = {}
    while len(finished) < 5:
        finished |= {each.tag: each for each in stream.wait(30.0)}
    assert [finished[tag].result for tag in range(4)] == [512 * 1024] * 4
    assert finished[9].failure == "ValueError: no such thing as 7"
    assert len(stream._scattered) <= 1
