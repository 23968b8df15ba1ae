"""What a person asks of a running phase on Prefect's pages: Pause, Resume, Cancel.

Prefect only writes down that a flow run is paused; the flow goes on unless it looks. So a thread asks for the state
of the flow run, and of those it is part of, every second, and the learner's loop, which asks before every outer
step, never waits for a server. A paused run waits; one that is being cancelled stops after a checkpoint. (Where
Prefect's worker has started the run, the worker also sends SIGTERM, which does the same.)
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.states import Cancelled

from curriculum.control import Command, Control

POLL_SECONDS = 1.0
LOST_SECONDS = 60.0
"""After so long without an answer a pause is over: nobody could end it."""
_URGENCY: dict[Command, int] = {"run": 0, "pause": 1, "stop": 2}
_COMMANDS: dict[StateType, Command] = {
    StateType.PAUSED: "pause",
    StateType.CANCELLING: "stop",
    StateType.CANCELLED: "stop",
}
_CANCELLED: set[UUID] = set()
"""Flow runs of this process that were cancelled while it watched."""


class PrefectWatch:
    """Looks after the flow run that this code runs in; `command` is what its state means."""

    def __init__(self, client: SyncPrefectClient, flow_runs: list[UUID]) -> None:
        self._client, self._flow_runs = client, flow_runs
        self.command: Command = "run"
        self._heard = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="keirin-prefect", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._over.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            try:
                self.command = max((self._ask(run) for run in self._flow_runs), key=_URGENCY.__getitem__)
                self._heard = time.monotonic()
            except Exception:  # the server's trouble, not the run's
                if time.monotonic() - self._heard > LOST_SECONDS:
                    self.command = "run"

    def _ask(self, flow_run: UUID) -> Command:
        state = self._client.read_flow_run(flow_run).state
        command = _COMMANDS.get(state.type, "run") if state is not None else "run"
        if command == "stop":
            _CANCELLED.add(flow_run)
        return command


@contextlib.contextmanager
def watched(read: Callable[[], Control]) -> Iterator[Callable[[], Control]]:
    """Yields `read` with the command of Prefect's pages where that is the more urgent one: stop, pause, run.

    Outside a flow run it is `read` itself.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield read
        return
    with get_client(sync_client=True) as client:
        watch = PrefectWatch(client, _with_parents(client, context.flow_run.id))

        def both() -> Control:
            control, command = read(), watch.command
            if _URGENCY[command] <= _URGENCY[control.command]:
                return control
            return control.model_copy(update={"command": command})

        try:
            yield both
        finally:
            watch.close()


def end_cancelled_runs() -> None:
    """Lets flow runs of this process that were cancelled end as that.

    The server lets no run that is being cancelled end in another way, and of a run that its worker has not started
    nobody else would say that it has ended.
    """
    while _CANCELLED:
        flow_run = _CANCELLED.pop()
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:
            message = "Stopped after a checkpoint; the same command continues from it."
            client.set_flow_run_state(flow_run, Cancelled(message=message), force=True)


def _with_parents(client: SyncPrefectClient, flow_run: UUID) -> list[UUID]:
    """Returns the flow run and those it is part of; only itself if the server does not say."""
    found = [flow_run]
    with contextlib.suppress(Exception):
        while (task_run := client.read_flow_run(found[-1]).parent_task_run_id) is not None:
            parent = client.read_task_run(task_run).flow_run_id
            if parent is None:
                break
            found.append(parent)
    return found
