"""Arguments that many units have in common: sent to the scheduler once, and to every worker once.

An argument of a task travels with every task. Here it is the result of a task of its own instead: the first worker
gets it from the scheduler, the others from each other, and when everyone who had it is gone the scheduler still
knows how to make it. (Scattered data would be lost then.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import dask
from dask.sizeof import sizeof
from distributed import Client

SHARED_BYTES = 1 << 16
"""Smaller arguments travel with every unit: a task more costs as much."""
Payload = tuple[Any, ...]


def share(client: Client, payloads: Sequence[Payload]) -> list[Payload]:
    """Returns the payloads with each large object that is in several of them replaced by its future."""
    uses = Counter(id(argument) for payload in payloads for argument in payload)
    futures: dict[int, Any] = {}

    def shared(argument: Any) -> Any:
        if uses[id(argument)] < 2:
            return argument
        if id(argument) not in futures:
            is_large = sizeof(argument) >= SHARED_BYTES
            futures[id(argument)] = _sent_once(client, argument) if is_large else argument
        return futures[id(argument)]

    return [tuple(shared(argument) for argument in payload) for payload in payloads]


def _sent_once(client: Client, argument: Any) -> Any:
    # Dask warns of graphs of 10 MB, as of something that was overlooked.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
        return client.submit(_itself, argument, pure=False)


def _itself(argument: Any) -> Any:
    return argument
