"""Starts services, waits until each answers, and stops them again in the reverse order."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flows.errors import ServiceFailedError
from flows.servers import lifeline
from flows.servers.http_probe import answers
from flows.servers.services import Service

START_TIMEOUT = 180.0
POLL_SECONDS = 0.2
TAIL_LINES = 6


class Stopped(Exception):
    """Not an error: somebody pressed Ctrl-C while the services were starting."""


class Supervisor:
    """The processes of one `keirin up`, each on its own lifeline.

    Args:
      log_folder: Where each service's output goes.
      stopping: Set from a signal handler when everything is to end.
    """

    def __init__(self, log_folder: Path, stopping: threading.Event) -> None:
        log_folder.mkdir(parents=True, exist_ok=True)
        self._log_folder = log_folder
        self._stopping = stopping
        self._running: list[tuple[Service, subprocess.Popen[bytes]]] = []

    def start(self, service: Service) -> None:
        """Starts a service and returns at once."""
        with self.log_of(service).open("wb") as output:
            process = lifeline.start(
                service.command, environment=service.environment, output=output, grace=service.grace
            )
        self._running.append((service, process))

    def wait_until_ready(
        self, services: Sequence[Service], on_ready: Callable[[Service, float], None]
    ) -> None:
        """Returns when every one of `services` answers.

        Args:
          services: Started ones, with a `health` address.
          on_ready: Called with a service and the seconds it took, as each answers.

        Raises:
          ServiceFailedError: If one ends or does not answer in time.
          Stopped: If everything is to end before that.
        """
        begin = time.monotonic()
        waiting = list(services)
        while waiting:
            if self._stopping.wait(POLL_SECONDS):
                raise Stopped
            self.require_alive()
            for service in [s for s in waiting if answers(s.health)]:
                waiting.remove(service)
                on_ready(service, time.monotonic() - begin)
            if waiting and time.monotonic() - begin > START_TIMEOUT:
                raise ServiceFailedError(
                    f"{waiting[0].name} does not answer at {waiting[0].health} after {START_TIMEOUT:g} s. "
                    f"Its log is {self.log_of(waiting[0])}."
                )

    def require_alive(self) -> None:
        """Raises a `ServiceFailedError`, with the end of its log, if a service has ended."""
        for service, process in self._running:
            if process.poll() is not None:
                raise ServiceFailedError(
                    f"{service.name} ended with code {process.returncode}. "
                    f"The end of its log, {self.log_of(service)}:\n{self._tail(service)}"
                )

    def watch(self) -> None:
        """Returns when everything is to end; raises as `require_alive` does if a service ends before."""
        while not self._stopping.wait(1.0):
            self.require_alive()

    def stop(self, on_stopping: Callable[[Service], None]) -> None:
        """Stops the services in the reverse order of their start; none is left afterwards.

        Args:
          on_stopping: Called with each service before it is stopped.
        """
        while self._running:
            service, process = self._running[-1]
            if process.poll() is None:
                on_stopping(service)
            lifeline.stop(process, timeout=2 * service.grace + 5.0)
            self._running.pop()

    def kill(self) -> None:
        """Ends everything now, without asking."""
        for _, process in reversed(self._running):
            with contextlib.suppress(OSError):
                process.terminate()

    def log_of(self, service: Service) -> Path:
        """Returns the file that a service's output goes to."""
        return self._log_folder / service.log_name

    def _tail(self, service: Service) -> str:
        with contextlib.suppress(OSError):
            lines = self.log_of(service).read_text("utf-8", errors="replace").splitlines()
            return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])
        return ""
