"""Runs a command that must not outlive its starter: `python -m flows.servers.lifeline [--grace S] -- COMMAND …`.

The starter holds the other end of standard input. When it closes it, or dies by whatever signal, the command
is asked to stop (SIGTERM), given a grace period, and then everything that it started is killed, whichever
process group or session that moved to: on Linux orphans are handed to this process
(`PR_SET_CHILD_SUBREAPER`). SIGTERM to this process does the same. The exit code is the command's.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

PR_SET_CHILD_SUBREAPER = 36
DEFAULT_GRACE = 10.0


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    output: IO[Any] | int | None = None,
    grace: float = DEFAULT_GRACE,
) -> subprocess.Popen[bytes]:
    """Starts `command` under a lifeline whose other end this process holds.

    The process is in its own session, so the terminal's Ctrl-C does not reach it.

    Args:
      command: The program and its arguments.
      environment: Variables to add to this process's own.
      output: Where its output and errors go.
      grace: Seconds between SIGTERM and SIGKILL.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "flows.servers.lifeline", "--grace", str(grace), "--", *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes], *, timeout: float) -> bool:
    """Lets go of the lifeline and waits; returns whether the process is gone, if need be by SIGKILL."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(5.0)
    return process.poll() is not None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command until it ends, or the starter does."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.servers.lifeline", description="Run a command on a lifeline."
    )
    parser.add_argument("--grace", type=float, default=DEFAULT_GRACE)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    _adopt_orphans()
    stopping = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threading.Thread(target=_watch_starter, args=(stopping,), daemon=True).start()
    child = subprocess.Popen(options.command, stdin=subprocess.DEVNULL)
    code = _wait(child, stopping, options.grace)
    _end_descendants(options.grace if stopping.is_set() else 0.0)
    return code


def _watch_starter(stopping: threading.Event) -> None:
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 4096):
            pass
    stopping.set()


def _wait(child: subprocess.Popen[bytes], stopping: threading.Event, grace: float) -> int:
    while not stopping.is_set():
        try:
            return child.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    child.terminate()
    try:
        return child.wait(grace)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _end_descendants(grace: float) -> None:
    """Asks whatever is left to stop, waits `grace` seconds at most, and kills the rest."""
    import psutil  # slow to import, and rarely needed before the end

    left = psutil.Process().children(recursive=True)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(left, timeout=grace)
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
