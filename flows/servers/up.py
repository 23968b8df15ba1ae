"""`keirin up`: every server that a person looks at, started together and stopped together.

Order of the start: Prefect, MLflow and Dask side by side; then the deployments; then the worker that runs
them. Order of the end, on Ctrl-C or SIGTERM: running flows are cancelled, so that they store their checkpoints
and say so to a server that is still there; then the worker; then the servers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from flows.errors import ServiceFailedError
from flows.servers.cancel_runs import cancel_deployed_runs
from flows.servers.prefect_env import free_port
from flows.servers.running_services import (
    RunningServices,
    read_services,
    remove_services,
    started_at,
    write_services,
)
from flows.servers.services import (
    Ports,
    Service,
    dask_cluster,
    flow_worker,
    mlflow_server,
    prefect_server,
    require_free_port,
)
from flows.servers.supervisor import Stopped, Supervisor
from flows.settings import RuntimeSettings
from storage.workspace import Workspace

CANCEL_TIMEOUT = 40.0
"""Seconds that running flows have to store their checkpoints and end."""


def run_up(
    settings: RuntimeSettings,
    ports: Ports,
    console: Console,
    *,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Runs the servers until SIGINT or SIGTERM.

    Args:
      settings: The workspace, and the resources of the Dask workers.
      ports: Where the servers listen.
      console: Where progress is shown.
      on_ready: Called once everything answers.

    Raises:
      PortTakenError: If a port is in use; nothing has been started then.
      ServiceFailedError: If a server does not start, or ends by itself; the others are stopped.
    """
    settings = settings.model_copy(update={"home": Workspace(settings.home).ensure().root.resolve()})
    _require_single(settings.home)
    scheduler_port = free_port()
    servers = [
        prefect_server(settings.home, ports.prefect),
        mlflow_server(settings.home, ports.mlflow),
        dask_cluster(settings, scheduler_port, ports.dask),
    ]
    for server in servers:
        require_free_port(server)
    stopping = threading.Event()
    supervisor = Supervisor(settings.home / "logs", stopping)
    previous = _handle_signals(stopping, supervisor, console)
    try:
        settings = settings.model_copy(update={"scheduler": f"tcp://127.0.0.1:{scheduler_port}"})
        _start(supervisor, servers, settings, console)
        on_ready()
        supervisor.watch()
    except Stopped:
        pass
    finally:
        remove_services(settings.home)
        num_cancelled = cancel_deployed_runs(f"{servers[0].url}/api", timeout=CANCEL_TIMEOUT)
        if num_cancelled:
            console.print(f"  cancelled {num_cancelled} running flows; their checkpoints are stored")
        supervisor.stop(lambda service: console.print(f"  stopping {service.name} …", highlight=False))
        for number, handler in previous.items():
            signal.signal(number, handler)
    console.print("  everything is stopped.")


def _start(
    supervisor: Supervisor, servers: list[Service], settings: RuntimeSettings, console: Console
) -> None:
    def show(service: Service, seconds: float) -> None:
        console.print(
            f"  [green]✓[/green] {service.name:<12} {service.url:<58} [dim]{seconds:.0f} s[/dim]",
            highlight=False,
        )

    console.print(
        f"Starting the servers of [bold]{settings.home}[/bold]; logs are in {settings.home / 'logs'}"
    )
    for server in servers:
        supervisor.start(server)
    supervisor.wait_until_ready(servers, show)
    prefect, mlflow, dask = servers
    worker = flow_worker(settings, f"{prefect.url}/api")
    _deploy(worker, supervisor.log_of(worker).with_name("deploy.log"))
    console.print("  [green]✓[/green] Deployments  one per step, and the whole pipeline", highlight=False)
    supervisor.start(worker)
    pid = os.getpid()
    write_services(
        settings.home,
        RunningServices(
            pid=pid,
            started=started_at(pid) or 0.0,
            prefect_ui=prefect.url,
            prefect_api=f"{prefect.url}/api",
            mlflow=mlflow.url,
            dask_dashboard=dask.url,
            scheduler=settings.scheduler,
        ),
    )
    console.print("  [green]✓[/green] Flow worker  runs what you start under Deployments", highlight=False)
    console.print("Ready. Ctrl-C stops everything.")


def _deploy(worker: Service, log: Path) -> None:
    """Creates the work pool and the deployments, in a process of its own: it imports Prefect."""
    with log.open("wb") as output:
        code = subprocess.call(
            [sys.executable, "-m", "flows.servers.deploy"],
            env={**os.environ, **worker.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if code != 0:
        raise ServiceFailedError(f"the deployments could not be created (code {code}). The log is {log}.")


def _handle_signals(
    stopping: threading.Event, supervisor: Supervisor, console: Console
) -> dict[int, signal._HANDLER]:
    """Makes SIGINT and SIGTERM end the run, and a second one end it at once."""

    def handle(*_: object) -> None:
        if stopping.is_set():
            supervisor.kill()
        else:
            stopping.set()
            console.print("\nStopping (again: without waiting for running flows) …")

    return {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}


def _require_single(home: Path) -> None:
    running = read_services(home)
    if running is not None:
        raise ServiceFailedError(
            f"`keirin up` is already running on {home} (process {running.pid}): {running.prefect_ui}. "
            "Use it, stop it with Ctrl-C, or choose another workspace with `--home`."
        )
