"""What a worker process does before its first unit; imports little, because every worker waits for it."""

from __future__ import annotations

import gc
import logging
import os

from flows.workers.niceness import give_way

LOST_HEARTBEAT = "Failed to communicate with scheduler during heartbeat"
"""What a worker of Dask's logs, with a traceback, when its scheduler is gone: at the end of every run, if the one
ends in the middle of the other. That the scheduler is lost in a run is found out and said by who waits for it."""


def prepare(niceness: int) -> None:
    """Leaves the terminal's process group, collects garbage rarely, and does not report the scheduler's end.

    Args:
      niceness: 0, or that of `give_way`.
    """
    if niceness:
        give_way(niceness)
    else:
        os.setpgrp()
    # Tracing a program makes very many objects and drops few. Looking through them as often as Python does by
    # default was a quarter of a first unit's time.
    gc.set_threshold(100_000, 20, 20)
    logging.getLogger("distributed.worker").addFilter(is_news)


def is_news(record: logging.LogRecord) -> bool:
    """Returns whether a line of a worker's log says what nobody else does."""
    return not record.getMessage().startswith(LOST_HEARTBEAT)
