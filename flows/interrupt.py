"""Ctrl-C that stops at a safe place, and ends the process whatever happens.

Python raises KeyboardInterrupt between any two instructions, also inside the locks of Prefect and Dask, which
then wait for ever. So the first Ctrl-C only asks: whoever waits for workers (that is where a run spends its
time) calls `raise_if_stop_requested`. A second Ctrl-C interrupts at once, and if the process is
still there after a while it is ended with its children; what was computed is in the last checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

INTERRUPTED = 130
PATIENCE = 60.0
"""Seconds between the first Ctrl-C and the hard end."""

_requested = threading.Event()


def raise_if_stop_requested() -> None:
    """Raises KeyboardInterrupt if Ctrl-C was pressed; called where it is safe to be interrupted."""
    if _requested.is_set():
        raise KeyboardInterrupt


@contextlib.contextmanager
def graceful_interrupts() -> Iterator[None]:
    """Handles SIGINT as the module's docstring says while the context is open (in the main thread)."""

    def handle(*_: object) -> None:
        if _requested.is_set():
            raise KeyboardInterrupt
        _requested.set()
        watchdog = threading.Timer(PATIENCE, end_process, args=(INTERRUPTED,))
        watchdog.daemon = True
        watchdog.start()
        print("\nStopping; the last state is being stored …", file=sys.stderr, flush=True)

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def end_process(code: int) -> None:
    """Ends this process and everything it started, without waiting for anybody."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
