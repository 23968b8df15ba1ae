"""A configuration that takes its process down, or never ends, is a timing like any other."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

import flows.run_times.process
from flows.run_times.process import TimingProcess
from flows.workers.units import time_unit
from task_generator.datasets.prepared import DatasetNotPreparedError
from task_generator.task_config import TaskConfig, parse_task_config

SETTINGS = {"repeats": 1, "runs": 1, "target_seconds": 0.002, "update": "none"}
GIB = 2**30


def mlp(**fields: Any) -> TaskConfig:
    family = {"family": "mlp", "hidden_size": 8, "num_layers": 1, "image_size": 4, "batch_size": 4}
    return parse_task_config({"family": {**family, "dataset": "digits", "activation": "relu", **fields}})


@pytest.fixture
def process() -> Iterator[TimingProcess]:
    process = TimingProcess(max_seconds=60.0, max_process_bytes=4 * GIB)
    yield process
    process.close()


def test_one_process_measures_many_and_outlives_one_that_kills_it(process: TimingProcess) -> None:
    first = process.measure(mlp().canonical_json(), SETTINGS)
    assert first["valid"]
    pid = process.pid
    assert process.measure(mlp(batch_size=5).canonical_json(), SETTINGS)["valid"]
    assert process.pid == pid

    def kill_soon() -> None:
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)

    threading.Thread(target=kill_soon).start()
    killed = process.measure(mlp(hidden_size=64, num_layers=16).canonical_json(), SETTINGS)
    assert killed["reason"].startswith("killed: its process ended by SIGKILL while ")
    assert process.measure(mlp().canonical_json(), SETTINGS)["valid"]
    assert process.pid != pid


def test_what_takes_too_long_is_ended_in_the_middle_of_its_compilation(process: TimingProcess) -> None:
    assert process.measure(mlp().canonical_json(), SETTINGS)["valid"]  # starts it
    process.max_seconds = 0.6
    slow = mlp(hidden_size=33, num_layers=31, activation=None)
    started = time.monotonic()
    late = process.measure(slow.canonical_json(), SETTINGS)
    assert late["reason"] == "time limit: not done after 0.6 s while compiling"
    assert time.monotonic() - started < 10


def test_what_outgrows_its_memory_is_ended(process: TimingProcess) -> None:
    process.max_process_bytes = 1
    big = process.measure(mlp(num_layers=20).canonical_json(), SETTINGS)
    assert big["reason"].startswith("out of memory: ")


def test_missing_data_are_the_owners_error(process: TimingProcess) -> None:
    with pytest.raises(DatasetNotPreparedError, match="keirin data prepare"):
        process.measure(mlp(dataset="cifar10").canonical_json(), SETTINGS)


def test_the_unit_records_the_reason_and_the_machine() -> None:
    record = time_unit(mlp(num_layers=21).canonical_json(), SETTINGS, 60.0, 1)
    assert not record["valid"]
    assert record["reason"].startswith("out of memory")
    assert record["machine"]["jax_version"]
    assert record["family"] == "mlp"


def test_it_does_not_outlive_its_owner(process: TimingProcess) -> None:
    process.measure(mlp().canonical_json(), SETTINGS)
    child = psutil.Process(process.pid)
    assert process.stdin is not None
    process.stdin.close()  # what happens when its owner dies
    child.wait(timeout=10)


def stand_in(*answers: str, ready: str = '{"ready": true}') -> TimingProcess:
    """Returns a process that is ready and answers the first request with these lines, and ends with exit code 3."""
    told = f"print({ready!r}, flush=True); sys.stdin.readline()"
    code = f"import sys; {told}; print({chr(10).join(answers)!r}, flush=True); sys.exit(3)"
    return TimingProcess(max_seconds=30.0, max_process_bytes=GIB, command=(sys.executable, "-c", code))


@pytest.mark.parametrize("line", ["this is no JSON", "3", "{"])
def test_a_line_that_is_no_reply_is_its_end(line: str) -> None:
    process = stand_in('{"stage": "running"}', line, '{"timing": {"valid": true}}')
    for _ in range(2):  # another one is started
        answer = process.measure("{}", {})
        assert answer["reason"] == f"killed: its process wrote what is no reply, {line!r}, while running"
        assert process.pid == -1


def test_an_update_that_takes_the_process_down_leaves_the_gradient_steps_timing() -> None:
    gradient = {"config_json": "{}", "valid": True, "seconds_per_step": 1e-5}
    process = stand_in(json.dumps({"gradient": gradient}), '{"stage": "timing the update"}')
    reason = "killed: its process ended with exit code 3 while timing the update"
    assert process.measure("{}", {}) == {**gradient, "update_reason": reason}


def test_a_process_that_is_not_ready_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a time limit of the first configuration."""
    monkeypatch.setattr(flows.run_times.process, "START_SECONDS", 0.1)
    command = (sys.executable, "-c", "import sys; sys.stdin.read()")
    process = TimingProcess(max_seconds=1.0, max_process_bytes=GIB, command=command)
    with pytest.raises(RuntimeError, match=r"is not ready after 0\.1 s"):
        process.measure("{}", {})
    assert process.pid == -1


def test_a_process_that_says_something_else_does_not_start() -> None:
    with pytest.raises(RuntimeError, match="does not start"):
        stand_in(ready="a greeting").measure("{}", {})
