"""Processes that start, answer and stop together: lifelines, the supervisor, ports, the addresses file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.errors import PortTakenError, ServiceFailedError
from flows.servers import lifeline
from flows.servers.prefect_env import apply_prefect_environment, free_port, prefect_environment
from flows.servers.running_services import (
    SERVICES_FILE,
    RunningServices,
    read_services,
    remove_services,
    started_at,
    write_services,
)
from flows.servers.services import Ports, Service, prefect_server, require_free_port
from flows.servers.supervisor import Supervisor

# Starts a child in a session of its own, writes both process ids, and sleeps.
_PARENT = """
import subprocess, sys, os, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(60)
"""


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state == "Z"


def pids_in(path: Path) -> list[int]:
    assert wait_for(lambda: path.exists() and len(path.read_text().split()) == 2)
    return [int(pid) for pid in path.read_text().split()]


def test_letting_go_of_a_lifeline_ends_the_command_and_its_descendants(tmp_path: Path) -> None:
    process = lifeline.start([sys.executable, "-c", _PARENT, str(tmp_path / "pids")], grace=0.5)
    pids = pids_in(tmp_path / "pids")
    assert lifeline.stop(process, timeout=10.0)
    assert all(map(is_gone, pids))


def test_a_command_does_not_outlive_a_starter_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from flows.servers import lifeline\n"
        f"lifeline.start([sys.executable, '-c', {_PARENT!r}, {str(tmp_path / 'pids')!r}], grace=0.5)\n"
        "time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code])
    pids = pids_in(tmp_path / "pids")
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    assert wait_for(lambda: all(map(is_gone, pids)))


def test_a_command_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    code = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + _PARENT
    process = lifeline.start([sys.executable, "-c", code, str(tmp_path / "pids")], grace=0.3)
    pids = pids_in(tmp_path / "pids")
    start = time.monotonic()
    assert lifeline.stop(process, timeout=10.0)
    assert time.monotonic() - start < 5
    assert all(map(is_gone, pids))


def test_the_exit_code_is_the_commands() -> None:
    process = lifeline.start([sys.executable, "-c", "raise SystemExit(7)"])
    assert process.wait(10) == 7
    lifeline.stop(process, timeout=1.0)


def web_server(port: int) -> Service:
    return Service(
        name="Web",
        command=(sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)),
        health=f"http://127.0.0.1:{port}/",
        url=f"http://127.0.0.1:{port}",
        port=port,
        option="--web-port",
        grace=1.0,
    )


def test_services_are_waited_for_and_stopped_last_first(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "logs", threading.Event())
    first, second = web_server(free_port()), web_server(free_port())
    ready: list[Service] = []
    stopped: list[Service] = []
    try:
        for service in (first, second):
            supervisor.start(service)
        supervisor.wait_until_ready([first, second], lambda service, _: ready.append(service))
    finally:
        supervisor.stop(stopped.append)
    assert set(map(id, ready)) == {id(first), id(second)}
    assert [service.port for service in stopped] == [second.port, first.port]
    require_free_port(first)  # nobody answers any more


def test_a_service_that_dies_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, threading.Event())
    broken = Service(name="Broken thing", command=(sys.executable, "-c", "raise SystemExit('no disk left')"))
    supervisor.start(broken)
    try:
        with pytest.raises(ServiceFailedError, match=r"(?s)Broken thing ended with code 1.*no disk left"):
            supervisor.watch()
    finally:
        supervisor.stop(lambda _: None)


def test_a_taken_port_is_named_with_its_user_and_the_option() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"port {port}, which Web needs.*--web-port {port + 1}"):
            require_free_port(web_server(port))


def test_addresses_count_only_while_their_writer_lives(tmp_path: Path) -> None:
    assert read_services(tmp_path) is None
    started = started_at(os.getpid())
    assert started is not None
    mine = RunningServices(pid=os.getpid(), started=started, prefect_api="http://127.0.0.1:4200/api")
    write_services(tmp_path, mine)
    assert read_services(tmp_path) == mine
    write_services(tmp_path, mine.model_copy(update={"started": started - 100.0}))  # the id was reused
    assert read_services(tmp_path) is None
    (tmp_path / SERVICES_FILE).write_text("{")
    assert read_services(tmp_path) is None
    remove_services(tmp_path)
    remove_services(tmp_path)


def test_prefect_keeps_its_files_in_the_workspace_and_sends_nothing(tmp_path: Path) -> None:
    environment = {"PREFECT_API_URL": "http://elsewhere"}
    apply_prefect_environment(tmp_path, environment=environment)
    assert "PREFECT_API_URL" not in environment
    assert environment["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert prefect_environment(tmp_path, api_url="http://x")["PREFECT_API_URL"] == "http://x"
    assert prefect_server(tmp_path, Ports().prefect).health == "http://127.0.0.1:4200/api/health"
