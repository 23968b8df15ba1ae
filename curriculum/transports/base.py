"""What every way for meta-gradients to travel can do: be packed by a worker, added up on the way, unpacked.

What is packed holds numbers only (a pytree of NumPy arrays), so that whoever passes it on needs no JAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from lopt.estimators.evolution import TasksConfig
from lopt.types import MetaGradient, Theta

Packed = Any
"""One meta-gradient, or the sum of several, as it travels."""


class Transport(Protocol):
    """A way for meta-gradients to travel."""

    name: str
    units_per_message: int
    """Meta-gradients at one theta that a worker adds up before it answers, where asynchronous."""

    def refusal(self, estimator: TasksConfig, mode: str) -> str:
        """Returns why this estimator's gradients cannot travel so in this mode, and the way out; "" if they can."""
        ...

    def pack(self, result: MetaGradient) -> Packed:
        """Returns what the worker sends of its result."""
        ...

    def add(self, packed: Sequence[Packed]) -> Packed:
        """Returns the sum of at least one, added in the given order, as it travels on."""
        ...

    def unpack(self, packed: Packed, estimator: TasksConfig, theta: Theta) -> Theta:
        """Returns the gradient, or the sum of those that were added, as NumPy; `theta` gives shapes only."""
        ...


def num_bytes(packed: Packed) -> int:
    """Returns the bytes of all numbers that travel."""
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(packed))
