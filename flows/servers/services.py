"""The servers of `keirin up` as data: what to run, with which variables, and how to see that it answers."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows.errors import PortTakenError
from flows.servers.deploy import WORK_POOL
from flows.servers.prefect_env import prefect_environment
from flows.settings import RuntimeSettings
from flows.workers.environment import worker_environment


@dataclass(frozen=True)
class Service:
    """One supervised process.

    Attributes:
      name: What it is called on the terminal.
      command: What to run.
      environment: Variables to add.
      url: What a browser opens; "" if there is nothing to look at.
      health: What answers a GET when the service is ready; "" if nothing does.
      port: The port it needs; 0 if none.
      option: The option of `keirin up` that changes the port.
      grace: Seconds between SIGTERM and SIGKILL.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    health: str = ""
    port: int = 0
    option: str = ""
    grace: float = 10.0

    @property
    def log_name(self) -> str:
        """The file, inside the workspace's logs, that its output goes to."""
        return f"{self.name.lower().replace(' ', '-')}.log"


@dataclass(frozen=True)
class Ports:
    """Where the servers listen, all on loopback."""

    prefect: int = 4200
    mlflow: int = 5000
    dask: int = 8787


def prefect_server(home: Path, port: int) -> Service:
    """The orchestration server and its pages."""
    url = f"http://127.0.0.1:{port}"
    return Service(
        name="Prefect",
        command=(
            sys.executable,
            "-m",
            "prefect",
            "server",
            "start",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ),
        environment=prefect_environment(home, api_url=f"{url}/api", quiet=False),
        url=url,
        health=f"{url}/api/health",
        port=port,
        option="--prefect-port",
    )


def mlflow_server(home: Path, port: int) -> Service:
    """The pages of the experiment tracker and model registry, on the workspace's database."""
    url = f"http://127.0.0.1:{port}"
    return Service(
        name="MLflow",
        command=(sys.executable, "-m", "flows.servers.mlflow_service", "--port", str(port)),
        # Its job runner would be another 235 MB for features that a training pipeline has no use for.
        environment={
            "KEIRIN_HOME": str(home.resolve()),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        # Without this MLflow opens on a page for language-model traces that hides the runs.
        url=f"{url}/#/?workflowType=machine_learning",
        health=f"{url}/health",
        port=port,
        option="--mlflow-port",
    )


def dask_cluster(settings: RuntimeSettings, scheduler_port: int, dashboard_port: int) -> Service:
    """Scheduler, workers and dashboard."""
    url = f"http://127.0.0.1:{dashboard_port}"
    arguments = ("--scheduler-port", str(scheduler_port), "--dashboard-port", str(dashboard_port))
    return Service(
        name="Dask",
        command=(sys.executable, "-m", "flows.servers.dask_service", *arguments),
        environment=settings.as_environment(),
        url=f"{url}/status",
        health=f"{url}/health",
        port=dashboard_port,
        option="--dask-port",
    )


def flow_worker(settings: RuntimeSettings, api_url: str) -> Service:
    """The process that starts flows when somebody asks for a run; two at a time."""
    packages = str(Path(__file__).resolve().parents[2])
    command = ("prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process", "--limit", "2")
    return Service(
        name="Flow worker",
        command=(sys.executable, "-m", *command, "--name", "keirin-up"),
        environment={
            **prefect_environment(settings.home, api_url=api_url, quiet=False),
            **settings.as_environment(),
            **worker_environment(settings),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PYTHONPATH": os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH")))),
        },
        grace=6.0,  # its flows have been cancelled by then
    )


def require_free_port(service: Service) -> None:
    """Raises a `PortTakenError` that says who needs the port and how to choose another."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", service.port))
        except OSError as error:
            raise PortTakenError(
                f"port {service.port}, which {service.name} needs, cannot be used ({error.strerror}). "
                f"Stop what uses it, or choose another: `keirin up {service.option} {service.port + 1}`."
            ) from error
