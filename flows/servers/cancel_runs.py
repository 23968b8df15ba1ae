"""Cancelling what still runs before the servers stop, over Prefect's HTTP interface.

A worker that is told to stop waits for its flows; a cancelled flow stores its checkpoint and ends in seconds,
as `Cancelled`. Plain HTTP, because importing Prefect's client would take longer than the cancellation.
"""

from __future__ import annotations

import json
import time
import urllib.request
from http.client import HTTPException
from typing import Any

from flows.servers.http_probe import DIRECT

ACTIVE = ["PENDING", "RUNNING", "CANCELLING", "PAUSED"]
POLL_SECONDS = 0.5


def cancel_deployed_runs(api_url: str, *, timeout: float) -> int:
    """Cancels the runs that the worker has started and waits until they have ended.

    Runs that were started from the command line are left alone. A server that does not answer ends the wait.

    Args:
      api_url: Of the Prefect server.
      timeout: Seconds to wait at most.

    Returns:
      How many runs were cancelled.
    """
    try:
        runs = _active_runs(api_url)
        for run in runs:
            _post(f"{api_url}/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
        deadline = time.monotonic() + timeout
        while runs and _active_runs(api_url) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    except (OSError, ValueError, HTTPException):
        return 0
    return len(runs)


def _active_runs(api_url: str) -> list[dict[str, Any]]:
    query = {"flow_runs": {"state": {"type": {"any_": ACTIVE}}, "parent_task_run_id": {"is_null_": True}}}
    found = _post(f"{api_url}/flow_runs/filter", query)
    return [run for run in found if run.get("deployment_id")]


def _post(url: str, body: dict[str, Any]) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with DIRECT.open(request, timeout=5.0) as response:
        return json.loads(response.read())
