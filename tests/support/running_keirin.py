"""A running `keirin up` as tests see it: what its server answers, its processes, and waiting for it."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.servers.running_services import RunningServices

MARK = "KEIRIN_BROWSER_MARK"
"""An environment variable that every process of `keirin up` inherits, wherever it moves to."""

START_SECONDS, RUN_SECONDS, STOP_SECONDS = 240.0, 600.0, 120.0
"""Generous: a machine that does something else as well is no failure."""


@dataclass(frozen=True)
class Up:
    """A running `keirin up`."""

    process: subprocess.Popen[bytes]
    services: RunningServices
    home: Path
    log: Path
    mark: str

    def api(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Asks the Prefect server."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.services.prefect_api}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def processes(self) -> list[psutil.Process]:
        """Returns every living process that was started by this `keirin up`, or by one of those."""
        return [process for process in psutil.process_iter() if _has_mark(process, self.mark)]


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False


def wait_for(what: str, condition: Callable[[], Any], *, seconds: float) -> Any:
    """Returns what `condition` returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:g} s")
        time.sleep(0.5)
    return found
