"""What the steps of one run share: settings, stores, the pool of workers, the terminal.

A step asks for the session; the first to ask opens it, and it is closed when that step ends. So the
pipeline, which asks before its steps do, starts the workers once, and every step can also be run by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cached_property
from typing import Protocol

from rich.console import Console

from curriculum.worker import WorkerPool
from flows.artifacts import ArtifactStore
from flows.progress import Reporter
from flows.settings import RuntimeSettings, settings_for_this_machine
from storage.checkpoints import CheckpointStore
from storage.curves import CurveStore
from storage.model_registry import ModelRegistry
from storage.timings import TimingStore
from storage.tracking import MlflowTracker, Tracker
from storage.workspace import Workspace


class ClosablePool(WorkerPool, Protocol):
    """A pool of workers that has to be let go of."""

    def close(self) -> None:
        """Lets go of the workers; may be called twice."""
        ...


class Session:
    """Everything a step needs besides its parameters; what is expensive is made when first asked for.

    Args:
      settings: Where things run.
      reporter: What is said on the way.
      open_pool: Makes the pool of workers.
      open_tracker: Makes the tracker.
    """

    def __init__(
        self,
        settings: RuntimeSettings,
        reporter: Reporter,
        *,
        open_pool: Callable[[RuntimeSettings], ClosablePool] | None = None,
        open_tracker: Callable[[Workspace], Tracker] | None = None,
    ) -> None:
        self.settings = settings
        self.reporter = reporter
        self.workspace = Workspace(settings.home).ensure()
        self.artifacts = ArtifactStore(self.workspace.root / "artifacts")
        self.checkpoints = CheckpointStore(self.workspace.checkpoints)
        self.timings = TimingStore(self.workspace.timings)
        self.curves = CurveStore(self.workspace.curves)
        self.registry = ModelRegistry(self.workspace)
        self._open_pool = open_pool or _open_dask_pool
        self._open_tracker = open_tracker or MlflowTracker
        self._pool: ClosablePool | None = None

    def with_own_workers(self, settings: RuntimeSettings) -> Session:
        """Returns a session on the same workspace with a pool of its own; whoever asks closes it.

        Args:
          settings: Of that pool; the workspace stays the same.
        """
        settings = settings.model_copy(update={"home": self.settings.home})
        return Session(settings, self.reporter, open_pool=self._open_pool, open_tracker=self._open_tracker)

    @contextlib.contextmanager
    def quietly(self) -> Iterator[None]:
        """Says nothing while the context is open."""
        reporter, self.reporter = self.reporter, Reporter(Console(quiet=True))
        try:
            yield
        finally:
            self.reporter = reporter

    @property
    def pool(self) -> ClosablePool:
        """The workers, started when first asked for."""
        if self._pool is None:
            self._pool = self._open_pool(self.settings)
        return self._pool

    def release_memory(self) -> None:
        """Gives back what compiling left behind, here and in the workers, when a step is over."""
        from flows.workers.memory import release_memory  # imports JAX

        release_memory()
        refresh = getattr(self._pool, "refresh", None)
        if refresh is not None:
            refresh()

    @cached_property
    def tracker(self) -> Tracker:
        """Where runs are recorded."""
        return self._open_tracker(self.workspace)

    def close(self) -> None:
        """Lets go of the workers."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


_CURRENT: ContextVar[Session | None] = ContextVar("keirin_session", default=None)


@contextlib.contextmanager
def use_session(session: Session) -> Iterator[Session]:
    """Makes `session` the one that steps inside the context share, and closes it afterwards."""
    token = _CURRENT.set(session)
    try:
        yield session
    finally:
        _CURRENT.reset(token)
        session.close()


@contextlib.contextmanager
def current_session(console: Console | None = None) -> Iterator[Session]:
    """Gives a step its session: the open one, or a new one for the step's duration."""
    session = _CURRENT.get()
    if session is not None:
        yield session
        return
    settings = settings_for_this_machine()
    with use_session(Session(settings, Reporter(console or Console()))) as opened:
        yield opened


def _open_dask_pool(settings: RuntimeSettings) -> ClosablePool:
    from flows.workers.pool import DaskWorkerPool  # half a second that steps without workers do not spend

    return DaskWorkerPool.open(settings)
