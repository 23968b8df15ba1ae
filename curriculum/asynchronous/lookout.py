"""Who is there to work, looked at now and then; and an end where nobody comes."""

from __future__ import annotations

from collections.abc import Callable

from curriculum.asynchronous.crew import Crew
from curriculum.errors import NoWorkersError
from curriculum.work_stream import WorkStream

LOOK_SECONDS = 0.5
NO_WORKER_SECONDS = 120.0
"""How long the loop waits for a worker to come (back)."""


class Lookout:
    """Keeps a crew up to date; not in every round of the loop, of which there may be thousands a second.

    Args:
      stream: Who knows the workers.
      crew: Who is told.
      clock: Seconds, from any origin.
    """

    def __init__(self, stream: WorkStream, crew: Crew, clock: Callable[[], float]) -> None:
        self._stream, self._crew, self._clock = stream, crew, clock
        self._looked_at = clock()
        self._alone_since: float | None = None

    def gone(self, outer_step: int) -> set[str]:
        """Returns the workers that have gone since the last look.

        Raises:
          NoWorkersError: If there has been none for two minutes.
        """
        now = self._clock()
        if len(self._crew) and now - self._looked_at < LOOK_SECONDS:
            return set()
        self._looked_at = now
        gone = set(self._crew.update(self._stream.workers()))
        if len(self._crew):
            self._alone_since = None
            return gone
        self._alone_since = now if self._alone_since is None else self._alone_since
        if now - self._alone_since > NO_WORKER_SECONDS:
            raise NoWorkersError(
                f"no worker for {NO_WORKER_SECONDS:g} s, at outer step {outer_step}. Start workers, and run the "
                "same command again: it goes on from the last checkpoint."
            )
        return gone
