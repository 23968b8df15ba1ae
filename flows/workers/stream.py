"""A `WorkStream` on Dask: every unit is pinned to the worker it was started on, and fails when that one is lost.

Dask would give a lost unit to another worker by itself; here the learner decides, because it balances tasks and
knows whose units fail again and again.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from dask.sizeof import sizeof
from distributed import Client, Future, LocalCluster

from curriculum.work_stream import Finished
from flows.errors import SchedulerUnreachableError
from flows.interrupt import raise_if_stop_requested

SCATTERED_BYTES = 1 << 20
"""Arguments larger than this are sent to every worker once, not with every unit."""
KEPT = 4
"""Scattered arguments: theta now, and those that units in flight still need."""
POLL_SECONDS = 0.2
LOOK_SECONDS = 0.5
"""Between looks at who is there, which ask the scheduler."""


class DaskWorkStream:
    """Runs units on the workers of a Dask cluster.

    Args:
      client: A connected client.
      cluster: The local cluster whose workers may be restarted; None if it belongs to someone else.
    """

    def __init__(self, client: Client, cluster: LocalCluster | None = None) -> None:
        self._client, self._cluster = client, cluster
        self._futures: dict[int, tuple[Future, str]] = {}
        self._finished: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._looked_at = time.monotonic()
        self._scattered: OrderedDict[int, tuple[Any, Future]] = OrderedDict()

    def workers(self) -> Sequence[str]:
        """Returns the addresses of the workers that are there now.

        Raises:
          SchedulerUnreachableError: If the scheduler is gone.
        """
        self._require_running()
        return sorted(self._client.scheduler_info(n_workers=-1)["workers"])

    def start(self, worker: str, fn: Callable[..., Any], payload: tuple[Any, ...], *, tag: int) -> None:
        """Starts the unit on `worker`."""
        self._require_running()
        arguments = [self._sent(argument) for argument in payload]
        future = self._client.submit(fn, *arguments, workers=[worker], pure=False, retries=0)
        self._futures[tag] = (future, worker)
        future.add_done_callback(lambda _, tag=tag: self._finished.put(tag))

    def wait(self, seconds: float) -> list[Finished]:
        """Returns what has finished; a unit whose worker is gone has failed.

        Raises:
          SchedulerUnreachableError: If the scheduler is gone.
          KeyboardInterrupt: If Ctrl-C was pressed.
        """
        waited = 0.0
        while True:
            raise_if_stop_requested()
            tags = self._drain(min(POLL_SECONDS, seconds))
            self._require_running()
            finished = [self._result(tag) for tag in tags if tag in self._futures]
            if time.monotonic() - self._looked_at >= LOOK_SECONDS:
                finished += self._lost()
            waited += POLL_SECONDS
            if finished or waited >= seconds:
                return finished

    def give_up(self, tag: int) -> None:
        """Cancels the unit, and restarts its worker if it is ours: a running one cannot be stopped otherwise."""
        future, worker = self._futures.pop(tag, (None, ""))
        if future is None:
            return
        with contextlib.suppress(Exception):
            future.cancel(force=True)
            if self._cluster is not None:
                self._client.restart_workers([worker], timeout=30, raise_for_error=False)

    def close(self) -> None:
        """Cancels what has not finished."""
        with contextlib.suppress(Exception):
            self._client.cancel([future for future, _ in self._futures.values()], force=True)
        self._futures.clear()

    def _drain(self, seconds: float) -> list[int]:
        tags: list[int] = []
        with contextlib.suppress(queue.Empty):
            tags.append(self._finished.get(timeout=seconds))
            while True:
                tags.append(self._finished.get_nowait())
        return tags

    def _result(self, tag: int) -> Finished:
        future, _ = self._futures.pop(tag)
        try:
            return Finished(tag, future.result(timeout=60))
        except Exception as error:  # of the unit, or of Dask: the learner counts both
            self._scattered.clear()  # what it needed may have gone with its worker
            return Finished(tag, None, f"{type(error).__name__}: {error}")

    def _lost(self) -> list[Finished]:
        self._looked_at, there = time.monotonic(), set(self.workers())
        gone = [(tag, worker) for tag, (_, worker) in self._futures.items() if worker not in there]
        for tag, _ in gone:
            future, _ = self._futures.pop(tag)
            with contextlib.suppress(Exception):
                future.cancel(force=True)
        if gone:
            self._scattered.clear()
        in_hand = {worker: tag for tag, worker in reversed(gone)}  # in the order that they were started in
        return [
            Finished(tag, None, "its worker was lost", had_begun=in_hand[worker] == tag)
            for tag, worker in gone
        ]

    def _sent(self, argument: Any) -> Any:
        """Returns the argument, or where workers find it if it is large."""
        if sizeof(argument) < SCATTERED_BYTES:
            return argument
        known = self._scattered.get(id(argument))
        if known is None:
            future = self._client.scatter(argument, broadcast=True, hash=False)
            known = self._scattered[id(argument)] = (
                argument,
                future,
            )  # the argument, so that its id stays its own
            while len(self._scattered) > KEPT:
                self._scattered.popitem(last=False)
        return known[1]

    def _require_running(self) -> None:
        if self._client.status != "running":
            raise SchedulerUnreachableError(
                "the Dask scheduler is gone. What was finished is stored: start the scheduler and the same command "
                "again, and it continues."
            )
