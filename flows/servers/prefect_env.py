"""Prefect's surroundings: its files in the workspace, nothing sent anywhere, little said on the terminal.

Prefect reads its settings when it is imported, so a command must call `apply_prefect_environment` first. Runs
go to the server of a running `keirin up`; without one, `TemporaryPrefectServer` starts one for the command's
duration. Prefect could do that itself, but it would wait for its server before doing anything else, and leave
it behind when the command is killed; ours starts while JAX and the Dask workers do, and hangs on a lifeline.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path

from flows.errors import ServiceFailedError
from flows.servers import lifeline
from flows.servers.http_probe import answers

SERVER_START_TIMEOUT = 120.0


def prefect_environment(home: Path, *, api_url: str | None = None, quiet: bool = True) -> dict[str, str]:
    """Returns the variables that Prefect is to find.

    Args:
      home: The workspace's folder.
      api_url: The server to use; None lets Prefect start one of its own.
      quiet: Whether Prefect's log goes to the server only, not to the terminal.
    """
    environment = {
        "PREFECT_HOME": str((home / "prefect").resolve()),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_CLI_PROMPT": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if quiet:
        environment["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    if api_url is not None:
        environment["PREFECT_API_URL"] = api_url
    return environment


def apply_prefect_environment(
    home: Path,
    *,
    api_url: str | None = None,
    quiet: bool = True,
    environment: MutableMapping[str, str] | None = None,
) -> None:
    """Sets the variables in this process.

    Raises:
      RuntimeError: If Prefect was imported already and would not see them.
    """
    if environment is None and "prefect" in sys.modules:
        raise RuntimeError("Prefect was imported before its environment was set; import it later.")
    target = os.environ if environment is None else environment
    if api_url is None:
        target.pop("PREFECT_API_URL", None)
    target.update(prefect_environment(home, api_url=api_url, quiet=quiet))


class TemporaryPrefectServer:
    """A Prefect server without pages, on a free loopback port, for as long as one command runs.

    Args:
      home: The workspace's folder; `keirin up` uses the same database, so the runs show up there later.
    """

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.api_url = f"http://127.0.0.1:{self.port}/api"
        self._log = home / "logs" / "prefect-temporary.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        (home / "prefect").mkdir(exist_ok=True)
        with self._log.open("wb") as output:
            self._process: subprocess.Popen[bytes] = lifeline.start(
                _server_command(self.port),
                environment={
                    **prefect_environment(home),
                    "PREFECT_API_URL": self.api_url,
                    "PREFECT_UI_ENABLED": "0",
                    # What Prefect sets for its own temporary servers: fewer background services.
                    "PREFECT__SERVER_EPHEMERAL": "1",
                    "PREFECT__SERVER_FINAL": "1",
                },
                output=output,
                grace=5.0,
            )

    def wait(self, timeout: float = SERVER_START_TIMEOUT) -> None:
        """Returns when the server answers.

        Raises:
          ServiceFailedError: If it does not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not answers(f"{self.api_url}/health"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServiceFailedError(
                    f"the temporary Prefect server did not start; its log is {self._log}. "
                    "If the log names the database, another version of Prefect may have written it."
                )
            time.sleep(0.05)

    def stop(self) -> None:
        """Stops the server."""
        lifeline.stop(self._process, timeout=10.0)


def free_port() -> int:
    """Returns a loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _server_command(port: int) -> list[str]:
    application = "prefect.server.api.server:create_app"
    address = ["--host", "127.0.0.1", "--port", str(port)]
    return [sys.executable, "-m", "uvicorn", "--factory", application, *address, "--log-level", "error"]
