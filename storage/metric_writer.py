"""Gathers metric values and writes them in batches from a thread, so that who measures does not wait for a disk.

MLflow has a queue of its own (`log_batch(synchronous=False)`): twenty threads, whose errors reach only who waits
for every single operation. Here there is one write at a time, and what goes wrong is raised at the next call.

A process that is killed loses what it has not written, at most a few seconds of it. Steps that a resumed run does
again, because it was killed after its last checkpoint, are recorded twice under the same step, each with its time.
MLflow shows both; as the latest value it takes that of the highest step, and of the later one there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from storage.tracking_protocol import MetricPoint, Run

FLUSH_SECONDS = 2.0
FLUSH_POINTS = 5_000
MAX_WAITING = 100_000
"""Values that may wait while the disk is slow; then the one who measures waits as well."""


class MetricWriter:
    """Takes values in; writes them every few seconds, and when told to.

    Args:
      run: Where to.
      clock: Seconds, from any origin.
      now: Seconds since 1970: the time that a value is recorded with.
    """

    def __init__(
        self,
        run: Run,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._run, self._clock, self._now = run, clock, now
        self._points: list[MetricPoint] = []
        self._since = clock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keirin-metrics")
        self._writing: Future[None] | None = None

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        """Takes in values of an outer step.

        Raises:
          StorageError: If an earlier write failed.
        """
        moment = int(self._now() * 1000)
        self._points.extend(
            MetricPoint(name, float(value), int(step), moment) for name, value in metrics.items()
        )
        if len(self._points) >= FLUSH_POINTS or self._clock() - self._since >= FLUSH_SECONDS:
            self._begin(wait=len(self._points) >= MAX_WAITING)

    def flush(self) -> None:
        """Returns when everything is written.

        Raises:
          StorageError: If a write failed.
        """
        self._begin(wait=True)
        self._finish()

    def close(self) -> None:
        """Writes what is left and ends the thread; raises as `flush` does."""
        try:
            self.flush()
        finally:
            self._thread.shutdown()

    def _begin(self, *, wait: bool) -> None:
        """Starts to write what has been gathered; while a write is under way, only if it is to be waited for."""
        if not wait and self._writing is not None and not self._writing.done():
            return
        self._finish()
        self._since = self._clock()
        if self._points:
            points, self._points = self._points, []
            self._writing = self._thread.submit(self._run.log_points, points)

    def _finish(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
