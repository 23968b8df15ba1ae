"""What every architecture's configuration is, and the checks that every `update` makes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lopt.config import FrozenConfig
from lopt.types import LearnedOptimizer, Scalar


class ArchitectureConfig(FrozenConfig):
    """The base of the configurations in `ARCHITECTURES`; subclasses fix `architecture` to their name."""

    architecture: str

    def build(self) -> LearnedOptimizer:
        """Returns the learned optimizer that the configuration describes."""
        raise NotImplementedError


def require_params(name: str, params: Any) -> None:
    """Raises ValueError where `update` was called without parameters."""
    if params is None:
        raise ValueError(f"{name} needs the parameters: call `update(grads, state, params, value=loss)`")


def require_loss(name: str, value: Any) -> None:
    """Raises ValueError where `update` was called without the loss."""
    if value is None:
        raise ValueError(
            f"{name} reads the loss: call `update(grads, state, params, value=loss)`, "
            "where `loss` is the scalar that was differentiated"
        )


def horizon(num_steps: int | Scalar) -> Scalar:
    """Returns `num_steps` as a float32 scalar; it may be traced.

    Raises:
      ValueError: If it is missing or, where it is concrete, not a whole number of at least 1.
    """
    if isinstance(num_steps, jax.core.Tracer):
        return jnp.asarray(num_steps, jnp.float32)
    number = np.asarray(num_steps)
    if number.ndim or number.dtype.kind not in "iuf" or number < 1 or number != np.floor(number):
        raise ValueError(
            f"`num_steps` must be the number of updates of the run, a whole number of at least 1, got {num_steps!r}"
        )
    return jnp.asarray(number, jnp.float32)
