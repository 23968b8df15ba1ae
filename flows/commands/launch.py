"""Running a flow from the command line: its server, its session, and the order in which they start and end.

Everything slow starts at once: the Prefect server as its own process, the workers as theirs, and the imports
here. They end in the reverse order, so that Prefect hears how the flow ended.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from rich.console import Console

from flows.interrupt import graceful_interrupts
from flows.servers.prefect_env import TemporaryPrefectServer, apply_prefect_environment
from flows.servers.running_services import read_services
from flows.settings import RuntimeSettings
from flows.workers.environment import apply_worker_environment
from flows.workers.scheduler_probe import require_scheduler

SIGTERM_EXIT_CODE = 143
FLUSH_TIMEOUT = 8.0


def run_flow(
    entrypoint: str,
    parameters: Callable[[Any], Any],
    settings: RuntimeSettings,
    console: Console,
    *,
    needs_workers: bool = True,
    debug: bool = False,
) -> Any:
    """Runs a flow in this process and returns its result.

    Args:
      entrypoint: Where it is: `flows.pipeline.pipeline`.
      parameters: Builds its parameters from the module `flows.parameters`, which takes seconds to import.
      settings: Where things run.
      console: Where progress is shown.
      needs_workers: Whether to start the workers before the flow.
      debug: Whether Prefect may write to the terminal.
    """
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    from storage.workspace import Workspace

    Workspace(settings.home).ensure()  # a folder that cannot be written is an error now, not in a minute
    if needs_workers and settings.scheduler is not None:
        require_scheduler(settings.scheduler, timeout=settings.connect_timeout)  # so is a wrong address
    apply_worker_environment(settings)
    with graceful_interrupts(), _prefect_api(settings, debug=debug) as wait_for_server:
        values = parameters(importlib.import_module("flows.parameters"))
        module, name = entrypoint.rsplit(".", 1)
        flow = getattr(importlib.import_module(module), name)
        from flows.progress import Reporter
        from flows.session import Session, use_session

        with use_session(Session(settings, Reporter(console))) as session:
            if needs_workers:
                _ = session.pool
            wait_for_server()
            try:
                return flow(values)
            finally:
                importlib.import_module("flows.training.prefect_watch").end_cancelled_runs()


@contextlib.contextmanager
def _prefect_api(settings: RuntimeSettings, *, debug: bool) -> Iterator[Callable[[], None]]:
    """Sets Prefect's environment, on a running server or a temporary one; yields how to wait for it."""
    services = read_services(settings.home)
    if services is not None and services.prefect_api is not None:
        apply_prefect_environment(settings.home, api_url=services.prefect_api, quiet=not debug)
        yield lambda: None
        return
    server = TemporaryPrefectServer(settings.home)
    try:
        apply_prefect_environment(settings.home, api_url=server.api_url, quiet=not debug)
        yield server.wait
    finally:
        # In a thread: Prefect's services wait for each other without a limit.
        flushing = threading.Thread(target=_flush_prefect, daemon=True)
        flushing.start()
        flushing.join(FLUSH_TIMEOUT)
        server.stop()


def _flush_prefect() -> None:
    """Sends what Prefect still holds back: at exit it would miss its server."""
    with contextlib.suppress(Exception):
        for handler in logging.getLogger("prefect.flow_runs").handlers:
            handler.flush()
    with contextlib.suppress(Exception):
        from prefect.events.worker import EventsWorker

        EventsWorker.drain_all(timeout=5)


def _exit_on_sigterm(*_: object) -> NoReturn:
    raise SystemExit(SIGTERM_EXIT_CODE)
