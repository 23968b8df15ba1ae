"""The Dask cluster of `keirin up`: `python -m flows.servers.dask_service --scheduler-port P --dashboard-port Q`.

One process for the scheduler, with the workers as its children, until SIGTERM or SIGINT. Settings come from
`KEIRIN_*` variables.
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Sequence

from flows.settings import RuntimeSettings
from flows.workers.cluster import CLOSE_TIMEOUT, kill_survivors, start_cluster, worker_pids


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m flows.servers.dask_service", description=__doc__)
    parser.add_argument("--scheduler-port", type=int, default=8786)
    parser.add_argument("--dashboard-port", type=int, default=8787)
    options = parser.parse_args(arguments)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    cluster = start_cluster(
        RuntimeSettings.from_environment(),
        dashboard_port=options.dashboard_port,
        scheduler_port=options.scheduler_port,
    )
    stopping.wait()
    pids = worker_pids(cluster)
    try:
        cluster.close(timeout=CLOSE_TIMEOUT)
    finally:
        kill_survivors(pids)


if __name__ == "__main__":
    main()
