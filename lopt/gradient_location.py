"""Where the next gradient is to be taken, for optimizers that look elsewhere than where they stand.

Most optimizers read the gradient at the parameters. One that looks ahead (Nesterov's momentum, the attended
location of Wichrowska et al. 2017, 3.2.1) asks for it at parameters plus an offset, and keeps that offset in its
state as an `AttendedOffset`. One line in the training loop serves both kinds:

    at = gradient_params(state, params)
    loss, grads = jax.value_and_grad(loss_fn)(at)
    updates, state = opt.update(grads, state, params, value=loss)

The update is applied to `params`, never to `at`. For an optimizer without an offset `at` is `params` itself: that
is decided when the program is traced, and costs nothing when it runs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lopt.types import Params, PyTree


class AttendedOffset(NamedTuple):
    """The part of an optimizer's state that says where its next gradient shall be taken."""

    attended_offset: PyTree
    """A tree like the parameters, float32: what to add to them. Zero before the first update."""


def gradient_params(optimizer_state: Any, params: Params) -> Params:
    """Returns where the loss and the gradient of the next step are to be evaluated.

    The offset is found wherever it is inside wrappers (`optax.chain`, `masked`, `multi_transform`, `MultiSteps`,
    the guard rails); parameters that a mask hides from the optimizer stay where they are. A wrapper that rescales
    the update moves the parameters but not the offset: the location is then relative to where they really are.

    Args:
      optimizer_state: The state after `init` or the latest `update`.
      params: The current parameters.

    Returns:
      `params` plus the attended offset, in the dtypes of `params`; `params` itself where there is no offset.

    Raises:
      ValueError: If the offset's tree or a shape in it is not that of `params`.
    """
    found = jax.tree.leaves(optimizer_state, is_leaf=_is_offset)
    for node in found:
        if _is_offset(node):
            params = _moved(params, node.attended_offset)
    return params


def _is_offset(node: Any) -> bool:
    return isinstance(node, AttendedOffset)


def _moved(params: Params, offset: PyTree) -> Params:
    try:
        return jax.tree.map(_add, offset, params, is_leaf=lambda node: isinstance(node, optax.MaskedNode))
    except ValueError as error:
        raise ValueError(
            "`params` must be the tree that `optimizer_state` was initialised for: its attended offset has the "
            f"structure {jax.tree.structure(offset)}, got parameters of structure {jax.tree.structure(params)}. "
            f"Pass the parameters that `init` was given, updated. ({error})"
        ) from error


def _add(offset: Any, param: Any) -> Any:
    if isinstance(offset, optax.MaskedNode):
        return param
    if jnp.shape(offset) != jnp.shape(param):
        raise ValueError(
            f"an offset of shape {jnp.shape(offset)} for a parameter of shape {jnp.shape(param)}"
        )
    param = jnp.asarray(param)
    return (param.astype(jnp.float32) + offset).astype(param.dtype)
