"""Starting, reaching and leaving a Dask cluster, with a bound on every wait.

Local workers leave the terminal's process group: a Ctrl-C, or the SIGTERM that Prefect sends to a cancelled
flow's whole group, must reach the flow only. It then saves its checkpoint and takes the workers down itself;
otherwise they would die first and be restarted while the flow tries to close them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from typing import Any

import dask
from distributed import Client, LocalCluster

from flows.errors import SchedulerUnreachableError
from flows.settings import RuntimeSettings
from flows.workers.environment import worker_environment
from flows.workers.scheduler_probe import unreachable

CLOSE_TIMEOUT = 6.0
START_TIMEOUT = 90.0


def start_cluster(
    settings: RuntimeSettings, *, dashboard_port: int | None = None, scheduler_port: int = 0
) -> LocalCluster:
    """Starts a scheduler and `settings.num_workers` single-purpose worker processes on loopback.

    Args:
      settings: Number of workers, their threads, memory and folders.
      dashboard_port: Where Dask's own web page answers; None starts none.
      scheduler_port: Where the scheduler listens; 0 takes any free port.
    """
    logging.getLogger("distributed").setLevel(logging.ERROR)
    scratch = settings.home / "dask"
    scratch.mkdir(parents=True, exist_ok=True)
    (settings.home / "compilation_cache").mkdir(exist_ok=True)
    prepare = f"from flows.workers.startup import prepare; prepare({settings.niceness})"
    configuration = {
        "distributed.worker.preload": [prepare],
        "distributed.nanny.pre-spawn-environ": worker_environment(settings),
        # A stolen unit of work would be compiled a second time; `DaskWorkerPool` balances instead.
        "distributed.scheduler.work-stealing": False,
        "distributed.comm.timeouts.connect": "10s",
        # A process that is killed closes its connections, which shows at once. Silence is no death: on a machine
        # with many times more work than cores, a worker that compiles may be silent for more than the usual 30 s.
        "distributed.comm.timeouts.tcp": "120s",
    }
    with dask.config.set(configuration):
        return LocalCluster(
            n_workers=settings.num_workers,
            threads_per_worker=1,  # one unit at a time; XLA has the threads of `environment`
            processes=True,
            host="127.0.0.1",
            scheduler_port=scheduler_port,
            # Without a page the scheduler still opens an HTTP port: let it be any free one.
            dashboard_address=f"127.0.0.1:{dashboard_port or 0}",
            scheduler_kwargs={"dashboard": dashboard_port is not None},
            worker_dashboard_address=None,
            memory_limit=settings.memory_limit,
            local_directory=str(scratch.resolve()),
            silence_logs=logging.ERROR,
            timeout=START_TIMEOUT,
        )


def connect(address: str | LocalCluster, *, timeout: float) -> Client:
    """Returns a client of the scheduler at `address`.

    Raises:
      SchedulerUnreachableError: If nobody answers within `timeout` seconds, or no worker has joined.
    """
    try:
        client = Client(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError) as error:  # a refused or unknown host; an address that is none
        raise unreachable(address, timeout) from error
    try:
        client.wait_for_workers(1, timeout=timeout)
    except TimeoutError as error:
        leave(client, None)
        raise SchedulerUnreachableError(
            f"the Dask scheduler at {address} has no workers. Start some: `dask worker {address} --nthreads 1`."
        ) from error
    return client


def worker_pids(cluster: Any) -> list[int]:
    """Returns the process ids of a local cluster's workers as of now (a killed worker gets a new one)."""
    workers = getattr(cluster, "workers", None) or {}
    return [nanny.pid for nanny in workers.values() if getattr(nanny, "pid", None)]


def leave(client: Client, cluster: LocalCluster | None) -> None:
    """Closes a client, and a cluster that is ours. Never raises an Exception, and takes seconds at most."""
    pids = worker_pids(cluster)
    with contextlib.suppress(Exception):
        client.close(timeout=2)
    if cluster is not None:
        with contextlib.suppress(Exception):
            cluster.close(timeout=CLOSE_TIMEOUT)
    kill_survivors(pids)


def kill_survivors(pids: list[int], *, grace: float = 0.5) -> None:
    """Ends processes that are still there after `grace` seconds. Units of work are pure: nothing is lost."""
    deadline = time.monotonic() + grace
    while any(map(_is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in filter(_is_alive, pids):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
