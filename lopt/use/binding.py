"""A learned optimizer and its weights as one optax transformation, with the weights in the state.

Weights that a program closes over are constants of that program: every new checkpoint would compile again, and
the executable would carry a copy. Kept in the state, they are an argument like any other. One compiled training
step then serves every checkpoint of an architecture and every length of run, and a run can be continued with more
steps than it was started with (`lopt.use.continuation`).

Donate the state to the compiled step (`jax.jit(step, donate_argnums=…)`), as one does for memory anyway: theta
then stays where it is. Without donation, `jit` copies everything that it returns, theta included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.types import LearnedOptimizer, Scalar, Theta

T = TypeVar("T")


class BoundState(NamedTuple):
    """The architecture's state together with what defines the optimizer."""

    inner: Any
    """The architecture's own state."""
    theta: Theta
    """Its weights; `update` hands them on untouched."""
    num_steps: jax.Array
    """Updates that the optimizer is told the run has; scalar int32."""


def bind(
    learned: LearnedOptimizer, theta: Theta, *, num_steps: int | Scalar
) -> optax.GradientTransformationExtraArgs:
    """Returns the optax transformation that `theta` defines, carrying `theta` and `num_steps` in its state.

    `init` makes copies, so that donating the state deletes no array of the caller's, and no buffer is donated
    twice. `update` uses what the state holds: states of other checkpoints of the same architecture may be given
    to it.

    Args:
      learned: A built architecture.
      theta: Its weights.
      num_steps: Updates that the run will make, at least 1; may be traced.

    Raises:
      ValueError: If `num_steps` is not a positive whole number.
    """
    check_num_steps(num_steps)

    def init(params: Any) -> BoundState:
        inner = learned.transform(theta, num_steps=num_steps).init(params)
        return _own_buffers(BoundState(inner, theta, jnp.asarray(num_steps, jnp.int32)))

    def update(
        grads: Any, state: BoundState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, BoundState]:
        optimizer = learned.transform(state.theta, num_steps=state.num_steps)
        updates, inner = optimizer.update(grads, state.inner, params, **extra_args)
        return updates, state._replace(inner=inner)

    return optax.GradientTransformationExtraArgs(init, update)


def rebind(state: Any, theta: Theta) -> Any:
    """Returns an optimizer's state with `theta` in place of the weights that it carries.

    Args:
      state: The state of a bound optimizer, under any wrappers.
      theta: Weights of the same architecture: same structure, shapes and dtypes.

    Raises:
      ValueError: If `state` carries no weights, or ones of another structure.
    """

    def replace(bound: BoundState) -> BoundState:
        if _description(bound.theta) != _description(theta):
            raise ValueError(
                "`theta` must have the structure and shapes of the weights that the state carries"
            )
        return bound._replace(theta=_own_buffers(theta))

    return map_bound(replace, state)


def map_bound(function: Callable[[BoundState], BoundState], state: Any) -> Any:
    """Returns an optimizer's state with every `BoundState` in it replaced by `function` of it.

    Raises:
      ValueError: If there is none.
    """
    bound_states(state)
    return jax.tree.map(lambda node: function(node) if _is_bound(node) else node, state, is_leaf=_is_bound)


def bound_states(state: Any) -> list[BoundState]:
    """Returns every `BoundState` in an optimizer's state, at least one.

    Raises:
      ValueError: If there is none.
    """
    found = [node for node in jax.tree.leaves(state, is_leaf=_is_bound) if _is_bound(node)]
    if not found:
        raise ValueError(
            "`state` must be that of an optimizer from `lopt.load` or `lopt.bind`, which carries theta and the "
            f"number of steps; found none in a {type(state).__name__}"
        )
    return found


def check_num_steps(num_steps: Any, *, name: str = "num_steps") -> None:
    """Raises ValueError unless `num_steps` is a positive whole number; traced ones are taken at their word."""
    if isinstance(num_steps, jax.core.Tracer):
        return
    is_array = isinstance(num_steps, jax.Array | np.ndarray | np.integer)
    number = np.asarray(num_steps) if is_array else num_steps
    is_whole = number.ndim == 0 and number.dtype.kind in "iu" if is_array else type(number) is int
    if not is_whole or number < 1:
        raise ValueError(
            f"`{name}` must be the number of updates of the run, a whole number of at least 1, got {num_steps!r}"
        )


def _own_buffers(tree: T) -> T:
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def _is_bound(node: Any) -> bool:
    return isinstance(node, BoundState)


def _description(tree: Any) -> tuple[Any, list[tuple[tuple[int, ...], Any]]]:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, [(np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
