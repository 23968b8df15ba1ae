"""Workers of a cluster that time configurations: one at a time, on the threads that they are told to use."""

from __future__ import annotations

import re
import shlex
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import flows.workers.cluster
import flows.workers.units
from flows.errors import SchedulerUnreachableError
from flows.settings import RuntimeSettings
from flows.workers.cluster import connect
from flows.workers.environment import worker_environment
from flows.workers.units import time_unit

README = Path(__file__).parents[2] / "README.md"
NOT_ON_THE_COMMAND_LINE = {
    "KEIRIN_HOME",  # where the workspace is, on that machine
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES",
    "TF_CPP_MIN_LOG_LEVEL",  # what is printed
    "PYTHONWARNINGS",
    "XLA_PYTHON_CLIENT_PREALLOCATE",  # of GPUs
}
"""What decides neither how a worker computes nor what memory that takes."""


def test_the_readmes_command_starts_workers_with_the_environment_of_local_ones(tmp_path: Path) -> None:
    (block,) = re.findall(r"dask scheduler --host.*?\n\n(.*?)\n\n", README.read_text("utf-8"), re.DOTALL)
    words = shlex.split(block.replace("\\\n", " "), comments=True)
    set_there = dict(word.split("=", 1) for word in words[: words.index("dask")])
    environment = worker_environment(RuntimeSettings(home=tmp_path, threads_per_worker=1))
    assert set_there == {k: v for k, v in environment.items() if k not in NOT_ON_THE_COMMAND_LINE}
    assert words[words.index("--nthreads") + 1] == "1"


def test_a_scheduler_without_workers_says_how_many_threads_they_should_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class WithoutWorkers:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def wait_for_workers(self, *_: Any, **__: Any) -> None:
            raise TimeoutError

        def close(self, **_: Any) -> None: ...

    monkeypatch.setattr(flows.workers.cluster, "Client", WithoutWorkers)
    with pytest.raises(SchedulerUnreachableError, match="`dask worker tcp://there:8786 --nthreads 1`"):
        connect("tcp://there:8786", timeout=0.1)


class Meeting:
    """Stands in for the measuring process: notes whether two configurations were in it at the same time."""

    def __init__(self) -> None:
        self.max_seconds, self.max_process_bytes = 0.0, 0
        self.barrier = threading.Barrier(2)
        self.have_met = False

    def measure(self, config_json: str, settings: dict[str, Any]) -> dict[str, Any]:
        try:
            self.barrier.wait(timeout=0.3)
            self.have_met = True
        except threading.BrokenBarrierError:  # nobody else came
            self.barrier.reset()
        return {"config_json": config_json, "limits": (self.max_seconds, self.max_process_bytes)}


def test_a_worker_with_several_threads_times_one_configuration_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = Meeting()
    monkeypatch.setattr(flows.workers.units, "_TIMING", process)
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(time_unit, str(n), {}, float(n), n) for n in (1, 2)]
        records = [future.result() for future in asked]
    assert not process.have_met
    assert [record["limits"] for record in records] == [(1.0, 1), (2.0, 2)]
