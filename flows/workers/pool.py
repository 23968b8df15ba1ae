"""A `WorkerPool` on Dask: pure units of work in, results out, in spite of workers that die.

A unit of work is an importable function and a tuple of picklable arguments. Because units are pure, it does
not matter which worker runs one or how often: a lost unit is run again, and the results are the same with
any number of workers. What matters is only where a compiled program already is, so payloads of one
`affinity` key prefer one worker, or a few (`flows.workers.placement`); when those are gone, any other takes them.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

from distributed import Client, Future, KilledWorker, LocalCluster

from flows.errors import SchedulerUnreachableError, WorkUnitKilledError, WorkUnitTimeoutError
from flows.interrupt import raise_if_stop_requested
from flows.settings import RuntimeSettings
from flows.workers.cluster import connect, leave, start_cluster
from flows.workers.placement import Placement
from flows.workers.shared_arguments import Payload, share
from flows.workers.stream import DaskWorkStream

POLL_SECONDS = 0.5
REFRESH_SECONDS = 300.0
DEFAULT_STALL_SECONDS = 1800.0

Result = TypeVar("Result")


class DaskWorkerPool:
    """Runs units of work on the workers of a Dask cluster.

    Args:
      client: A connected client.
      cluster: The local cluster to close with the pool; None if it belongs to someone else.
    """

    def __init__(self, client: Client, cluster: LocalCluster | None = None) -> None:
        self._client = client
        self._cluster = cluster
        self._placement = Placement()
        self._is_closed = False
        self._is_fresh = True  # no worker has been given anything since it was started

    @classmethod
    def open(cls, settings: RuntimeSettings) -> DaskWorkerPool:
        """Returns a pool on the scheduler that `settings` name, or else on fresh local workers.

        Raises:
          SchedulerUnreachableError: If the named scheduler does not answer, or has no workers.
        """
        if settings.scheduler is not None:
            return cls(connect(settings.scheduler, timeout=settings.connect_timeout))
        cluster = start_cluster(settings)
        return cls(connect(cluster, timeout=60.0), cluster)

    @property
    def num_workers(self) -> int:
        """How many workers there are now."""
        return len(self._worker_addresses())

    def run_all(
        self,
        fn: Callable[..., Result],
        payloads: Sequence[Payload],
        *,
        affinity: Sequence[str] | None = None,
        costs: Sequence[float] | None = None,
        timeout: float | None = None,
        on_result: Callable[[int, Result], None] | None = None,
    ) -> list[Result]:
        """Returns `[fn(*payload) for payload in payloads]`.

        Args:
          fn: An importable function.
          payloads: The arguments that it is called with, one tuple per unit of work.
          affinity: Per payload, the key of the worker that it prefers.
          costs: Per payload, what it is expected to take, in any unit: the longest start first, and workers get
            about equal sums.
          timeout: Seconds that may pass without any unit finishing.
          on_result: Called with (index, result) as each unit finishes, for progress and storage.
        """
        results: dict[int, Result] = {}
        for index, result in self.imap_unordered(
            fn, payloads, affinity=affinity, costs=costs, timeout=timeout
        ):
            results[index] = result
            if on_result is not None:
                on_result(index, result)
        return [results[index] for index in range(len(payloads))]

    def imap_unordered(
        self,
        fn: Callable[..., Result],
        payloads: Sequence[Payload],
        *,
        affinity: Sequence[str] | None = None,
        costs: Sequence[float] | None = None,
        timeout: float | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Yields (index, result) in the order of completion; the arguments are those of `run_all`.

        Leaving the iteration early cancels what has not started.

        Raises:
          WorkUnitKilledError: If one unit took several workers down.
          WorkUnitTimeoutError: If nothing finished for `timeout` seconds (half an hour by default).
          SchedulerUnreachableError: If the scheduler is lost.
          Exception: Whatever `fn` raises, with its remote traceback.
        """
        finished: queue.SimpleQueue[int] = queue.SimpleQueue()
        pending = self._submit(fn, payloads, affinity, costs)
        for index, future in pending.items():
            future.add_done_callback(lambda _, index=index: finished.put(index))
        try:
            while pending:
                index = self._next(finished, timeout or DEFAULT_STALL_SECONDS, len(pending))
                result = self._result(pending[index], index, timeout or DEFAULT_STALL_SECONDS)
                del pending[index]
                yield index, result
        finally:
            if pending and not self._is_closed and self._client.status == "running":
                with contextlib.suppress(Exception):
                    self._client.cancel(list(pending.values()), force=True)

    def stream(self) -> DaskWorkStream:
        """Returns the same workers as a stream of units."""
        self._require_running()
        self._is_fresh = False
        return DaskWorkStream(self._client, self._cluster)

    def refresh(self) -> None:
        """Replaces local workers by fresh processes; a cluster that belongs to someone else is left alone.

        A compiler keeps memory that no call gives back; after dozens of programs it is most of a worker's. Workers
        that have done nothing are left alone: one that is told to start again while it starts may be lost.
        """
        if self._cluster is None or self._is_closed or self._is_fresh:
            return
        # On a slow machine units wait for the workers, with a limit of their own.
        with contextlib.suppress(TimeoutError):
            self._client.restart(timeout=REFRESH_SECONDS)
        self._placement.forget()
        self._is_fresh = True

    def close(self) -> None:
        """Lets go of the cluster, in whatever state it is; may be called twice."""
        if not self._is_closed:
            self._is_closed = True
            leave(self._client, self._cluster)

    def __enter__(self) -> DaskWorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(
        self,
        fn: Callable[..., Any],
        payloads: Sequence[Payload],
        affinity: Sequence[str] | None,
        costs: Sequence[float] | None,
    ) -> dict[int, Future]:
        """Sends every payload off, in one graph per preferred worker, the costliest first."""
        self._require_running()
        self._is_fresh = False
        for name, given in (("affinity", affinity), ("costs", costs)):
            if given is not None and len(given) != len(payloads):
                raise ValueError(
                    f"`{name}` needs one entry per payload, got {len(given)} for {len(payloads)} payloads."
                )
        weights = [1.0] * len(payloads) if costs is None else list(costs)
        homes: Sequence[str | None] = (
            [None] * len(payloads)
            if affinity is None
            else self._placement.place(affinity, weights, self._worker_addresses())
        )
        order = sorted(
            range(len(payloads)), key=lambda index: -weights[index]
        )  # stable: equals keep their order
        futures: dict[int, Future] = {}
        payloads = share(self._client, payloads)
        for home in dict.fromkeys(homes[index] for index in order):
            indices = [index for index in order if homes[index] == home]
            placement = {} if home is None else {"workers": [home], "allow_other_workers": True}
            batch = self._client.map(
                _call,
                *zip(*((fn, *payloads[i]) for i in indices), strict=True),
                key=fn.__name__,
                pure=False,
                **placement,
            )
            futures.update(zip(indices, batch, strict=True))
        return futures

    def _worker_addresses(self) -> list[str]:
        return sorted(self._client.scheduler_info()["workers"])

    def _next(self, finished: queue.SimpleQueue[int], stall: float, left: int) -> int:
        deadline = time.monotonic() + stall
        while True:
            with contextlib.suppress(queue.Empty):
                index = finished.get(timeout=POLL_SECONDS)
                raise_if_stop_requested()
                return index
            raise_if_stop_requested()
            self._require_running()
            if time.monotonic() > deadline:
                raise WorkUnitTimeoutError(
                    f"no unit of work finished for {stall:g} s; {left} are left on {self.num_workers} "
                    "workers. Look at the workers' logs and memory, or allow more time."
                )

    def _result(self, future: Future, index: int, stall: float) -> Any:
        if future.status == "cancelled":
            raise self._scheduler_lost()
        try:
            return future.result(timeout=stall)
        except KilledWorker as error:
            raise WorkUnitKilledError(
                f"work unit {index} ended {error.allowed_failures + 1} workers one after another, which is "
                "what running out of memory looks like. Raise `--memory-limit`, or use fewer workers.",
                index=index,
            ) from error

    def _require_running(self) -> None:
        if self._is_closed:
            raise RuntimeError("this worker pool is closed. Open another one.")
        if self._client.status != "running":
            raise self._scheduler_lost()

    def _scheduler_lost(self) -> SchedulerUnreachableError:
        address = self._client.scheduler.address if self._client.scheduler else "its address"
        return SchedulerUnreachableError(
            f"the Dask scheduler at {address} is gone. What was finished is stored: "
            "start the scheduler and the same command again, and it continues."
        )


def _call(fn: Callable[..., Result], *payload: Any) -> Result:
    return fn(*payload)
