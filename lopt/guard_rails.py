"""Guard rails: wrappers around any optax transformation that keep one bad step from ruining a run."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class SkipNonFiniteState(NamedTuple):
    """The wrapped optimizer's state and how many tensor updates were skipped."""

    inner: Any
    num_skipped: jax.Array  # scalar int32


def skip_non_finite(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Returns `inner`, guarded: a tensor with a NaN or infinite gradient stands still for that step.

    The optimizer sees zeros in its place, so no accumulator is poisoned and no other tensor moves differently
    than it would with a zero gradient there. Each skipped tensor is counted. A non-finite `value` reaches the
    optimizer unchanged: those that read it must know what a lost loss means to them (`pacer` ignores it).
    """
    wrapped = optax.with_extra_args_support(inner)

    def init(params: Any) -> SkipNonFiniteState:
        return SkipNonFiniteState(wrapped.init(params), jnp.zeros((), jnp.int32))

    def update(
        grads: Any, state: SkipNonFiniteState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, SkipNonFiniteState]:
        ok = jax.tree.map(lambda g: jnp.all(jnp.isfinite(g)), grads)
        clean = jax.tree.map(lambda good, g: jnp.where(good, g, jnp.zeros_like(g)), ok, grads)
        updates, inner_state = wrapped.update(clean, state.inner, params, **extra_args)
        updates = jax.tree.map(lambda good, u: jnp.where(good, u, jnp.zeros_like(u)), ok, updates)
        skipped = sum((jnp.int32(1) - good.astype(jnp.int32) for good in jax.tree.leaves(ok)), jnp.int32(0))
        return updates, SkipNonFiniteState(inner_state, state.num_skipped + skipped)

    return optax.GradientTransformationExtraArgs(init, update)
