"""What can go wrong in orchestration, as far as a caller would want to catch it.

OrchestrationError
├── SchedulerUnreachableError (also ConnectionError)   nobody answers at the Dask scheduler's address
├── PhaseStoppedError (also RuntimeError)              a phase was told to stop, and has
├── WorkUnitKilledError (also RuntimeError)            a unit of work took several workers down with it
├── WorkUnitTimeoutError (also TimeoutError)           no unit finished for too long
├── PortTakenError (also OSError)                      a server's port belongs to someone else
├── ServiceFailedError (also RuntimeError)             a server died or did not answer
└── StepIncompleteError (also LookupError)             a step needs the result of one that has not run
"""

from __future__ import annotations


class OrchestrationError(Exception):
    """Base of the errors below."""


class SchedulerUnreachableError(OrchestrationError, ConnectionError):
    """No Dask scheduler answers, or the one that did is gone."""


class WorkUnitKilledError(OrchestrationError, RuntimeError):
    """A unit of work was lost with several workers in turn, so that it is likely the cause.

    Attributes:
      index: The position of the unit's payload in the sequence that was given.
    """

    def __init__(self, message: str, *, index: int) -> None:
        super().__init__(message)
        self.index = index


class WorkUnitTimeoutError(OrchestrationError, TimeoutError):
    """No unit of work finished within the time allowed."""


class PortTakenError(OrchestrationError, OSError):
    """A port that a server needs is in use."""


class ServiceFailedError(OrchestrationError, RuntimeError):
    """A supervised server died or never answered."""


class PhaseStoppedError(OrchestrationError, RuntimeError):
    """A phase was told to stop before its end, and did, after a checkpoint."""


class StepIncompleteError(OrchestrationError, LookupError):
    """A step was asked for before the step it builds on."""
