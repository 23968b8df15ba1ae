"""Optimizers of other packages on every tree that ours accept.

Most of optax keeps its accumulators in the parameters' dtype, where a bfloat16 second moment stops moving at a
decay of 0.999, and reduces over whole tensors, which fails for an empty one. Here an optimizer sees each leaf in
float32 at least, and a single zero where a leaf is empty. Float32 trees without empty leaves pass unchanged.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lopt.types import Params


def on_wide_leaves(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Returns `inner` with float32 state for lower-precision parameters; updates have the gradients' dtypes.

    The state is that of `inner`, not wrapped.
    """
    wrapped = optax.with_extra_args_support(inner)

    def init(params: Params) -> optax.OptState:
        return wrapped.init(widened(params))

    def update(
        grads: optax.Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        wide_params = None if params is None else widened(params)
        updates, state = wrapped.update(widened(grads), state, wide_params, **extra_args)
        return narrowed(updates, grads), state

    return optax.GradientTransformationExtraArgs(init, update)


def widened(tree: Any) -> Any:
    """Returns the tree in float32 or wider, with a zero of the same rank for each empty leaf."""

    def one(leaf: Any) -> jax.Array:
        array = jnp.asarray(leaf)
        if array.size == 0:
            return jnp.zeros((1,) * array.ndim, jnp.float32)
        return array.astype(jnp.float32) if jnp.finfo(array.dtype).bits < 32 else array

    return jax.tree.map(one, tree)


def narrowed(tree: Any, like: Any) -> Any:
    """Returns the tree with the dtypes and the empty leaves of `like`."""
    return jax.tree.map(
        lambda leaf, model: leaf.astype(jnp.asarray(model).dtype) if jnp.size(model) else model, tree, like
    )
