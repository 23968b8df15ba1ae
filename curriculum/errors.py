"""What ends a run of a phase that cannot go on."""

from __future__ import annotations


class NoWorkersError(ConnectionError):
    """There has been no worker for too long."""


class AllTasksFailedError(ValueError):
    """Every task of the phase has failed too often in a row."""
