"""When an optimizer wants to be told a validation loss, for those that watch generalisation while they train.

Most optimizers read the training loss and nothing else. One that also reads a validation loss (Metz et al. 2020,
arXiv:2009.11243, App. C) wants one now and then, since each costs a forward pass, and keeps in its state a
`ValidationRequest` that counts down to the next. A training loop that serves it:

    valid_loss = valid_loss_fn(params) if validation_due(state) else None
    updates, state = opt.update(grads, state, params, value=loss, valid_value=valid_loss)

That is a loop in Python. Under `jit` it is a `lax.cond` (docs/optimizers.md), and only for an optimizer that asks:
of any other `validation_due` is None, which is known when the program is traced.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class ValidationRequest(NamedTuple):
    """The part of an optimizer's state that says when it wants the next validation loss."""

    updates_until: jax.Array
    """Scalar int32: updates before the one that shall be told. Zero before the first update."""

    @classmethod
    def now(cls) -> ValidationRequest:
        """Returns the request of a new run."""
        return cls(jnp.zeros((), jnp.int32))

    def after_update(self, interval: int) -> ValidationRequest:
        """Returns the request after one more update, whether or not it was heeded: every `interval` updates."""
        return ValidationRequest(jnp.where(self.updates_until <= 0, interval, self.updates_until) - 1)


def validation_due(optimizer_state: Any) -> jax.Array | None:
    """Returns whether the next update shall be told a validation loss, scalar bool; None where none ever is.

    The request is found wherever it is inside wrappers (`optax.chain`, `masked`, `multi_transform`, the guard
    rails). Of several, the first that is due counts.
    """
    found = [node for node in jax.tree.leaves(optimizer_state, is_leaf=_is_request) if _is_request(node)]
    if not found:
        return None
    return jnp.any(jnp.stack([request.updates_until for request in found]) <= 0)


def _is_request(node: Any) -> bool:
    return isinstance(node, ValidationRequest)
