"""A scheduler with workers in a process of its own, to be killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

_SCHEDULER = """
import time
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=":0"
    )
    print(cluster.scheduler_address, flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def scheduler_process() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Starts it in a process group of its own; gives its address and the process."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SCHEDULER], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip(), server
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
