"""What a flow leaves on its page in Prefect: tables, texts, pictures and a progress bar.

Outside a flow run (a test, a plain call of `flow.fn`) these do nothing. Pictures are embedded as data, so
that the page shows them without a network. A server that does not take an artifact must not end a run of
hours.
"""

from __future__ import annotations

import base64
import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger

PROGRESS_INTERVAL = 2.0
"""Seconds between two updates of a progress bar, each of which is a request."""


def publish_table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Stores a table. Numbers without a JSON form (NaN, infinities) are shown as text."""
    table = [{name: _plain(value) for name, value in row.items()} for row in rows]
    _publish(lambda: create_table_artifact(key=key, table=table, description=description))


def publish_markdown(key: str, text: str, description: str = "") -> None:
    """Stores a text."""
    _publish(lambda: create_markdown_artifact(key=key, markdown=text, description=description))


def publish_image(key: str, png: bytes, description: str) -> None:
    """Stores a picture."""
    address = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    _publish(lambda: create_image_artifact(image_url=address, key=key, description=description))


class ProgressArtifact:
    """A progress bar on the flow run's page.

    Args:
      key: Lower case letters, digits and dashes.
      description: What is in progress.
    """

    def __init__(self, key: str, description: str) -> None:
        self._identifier: UUID | None = None
        self._shown = time.monotonic()

        def create() -> None:
            self._identifier = create_progress_artifact(0.0, key=key, description=description)  # type: ignore[assignment]

        _publish(create)

    def __call__(self, percent: float) -> None:
        """Moves the bar, at most every other second."""
        if self._identifier is None:
            return
        if percent < 100.0 and time.monotonic() - self._shown < PROGRESS_INTERVAL:
            return
        self._shown = time.monotonic()
        identifier = self._identifier
        _publish(lambda: update_progress_artifact(identifier, min(percent, 100.0)))


def _publish(create: Callable[[], object]) -> None:
    if FlowRunContext.get() is None:
        return
    try:
        create()
    except Exception as error:  # the server's trouble, not the run's
        with contextlib.suppress(Exception):
            get_run_logger().warning("an artifact was not stored: %s", error)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
