"""Whether anybody listens at a scheduler's address, asked before anything slow is started.

A command that was given a wrong address should say so in seconds. Dask's own client would be asked only after
its imports, and after a Prefect server has been started.
"""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

from flows.errors import SchedulerUnreachableError

RETRY_SECONDS = 0.2


def require_scheduler(address: str, *, timeout: float) -> None:
    """Returns once a connection is accepted; a scheduler that is just starting has `timeout` seconds.

    Addresses that are no plain host and port (`inproc://`) are left to Dask.

    Raises:
      SchedulerUnreachableError: If the host is unknown, or nobody accepts in time.
    """
    host, port = _host_and_port(address)
    if host is None or port is None:
        return
    deadline = time.monotonic() + timeout
    while True:
        try:
            with socket.create_connection((host, port), timeout=max(deadline - time.monotonic(), 0.1)):
                return
        except OSError as error:  # refused, timed out, unknown
            if isinstance(error, socket.gaierror) or time.monotonic() + RETRY_SECONDS > deadline:
                raise unreachable(address, timeout) from error
        time.sleep(RETRY_SECONDS)


def unreachable(address: object, timeout: float) -> SchedulerUnreachableError:
    """Returns the error that says how to get a scheduler."""
    return SchedulerUnreachableError(
        f"no Dask scheduler answers at {address} within {timeout:g} s. "
        "Start one (`dask scheduler`), correct `--scheduler`, or leave it out to use local workers."
    )


def _host_and_port(address: str) -> tuple[str | None, int | None]:
    parts = urlsplit(address)
    if parts.scheme not in ("tcp", "tls"):
        return None, None
    try:
        return parts.hostname, parts.port
    except ValueError as error:  # a port that is no number, or too large
        raise SchedulerUnreachableError(
            f"{address!r} is no address: {error}. Use tcp://HOST:PORT."
        ) from error
