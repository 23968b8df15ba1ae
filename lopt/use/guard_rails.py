"""Guard rails: wrappers around any optax transformation that keep a long or unlucky run on its way.

`lopt.load` puts them around a learned optimizer in this order, from the outside in: `skip_non_finite`,
`l2_weight_decay`, `accumulate_above`. What is not finite never reaches an accumulator, and the weight decay of a
tensor that stands still is dropped with its update.

[1] Metz et al. 2022, "VeLO", App. I (guard rails), F.4.4 (weight decay as an auxiliary loss).
[2] google/learned_optimization (Apache-2.0): the released guard rails. Deviations are stated in each function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from lopt.use.binding import check_num_steps
from lopt.use.layerwise import Stacked, mark_leaves

T = TypeVar("T")


class SkipNonFiniteState(NamedTuple):
    """The wrapped optimizer's state and what has been skipped."""

    inner: Any
    num_skipped_updates: jax.Array  # scalar int32: updates lost to a loss that was not finite
    num_skipped_tensors: jax.Array  # scalar int32: tensors that stood still in the other updates


def skip_non_finite(
    inner: optax.GradientTransformation, *, stacked: Stacked = False
) -> optax.GradientTransformationExtraArgs:
    """Returns `inner`, guarded against what is not finite; everything skipped is counted.

    - A NaN or infinite loss (`value`): the update is skipped. Parameters and the optimizer's state stay as they
      are, as if the step had not been taken.
    - A NaN or infinity in a tensor's gradient: that tensor stands still for the step. The optimizer sees zeros
      in its place, so no accumulator is poisoned, and the others move as they would with a zero gradient there.

    Args:
      inner: The optimizer.
      stacked: Which subtrees hold one tensor per layer along their leading axis, each judged on its own; see
        `lopt.use.layerwise`.
    """
    wrapped = optax.with_extra_args_support(inner)

    def init(params: Any) -> SkipNonFiniteState:
        # Two zeros, not one twice: a state is donated to a compiled step, and a buffer can be donated only once.
        return SkipNonFiniteState(wrapped.init(params), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def update(
        grads: Any, state: SkipNonFiniteState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, SkipNonFiniteState]:
        loss_ok = jnp.bool_(True)
        if extra_args.get("value") is not None:
            value = jnp.asarray(extra_args["value"])
            loss_ok = jnp.all(jnp.isfinite(value))
            extra_args["value"] = jnp.where(loss_ok, value, jnp.zeros_like(value))
        tensor_ok = jax.tree.map(_is_finite, mark_leaves(stacked, grads), grads)
        clean = jax.tree.map(_zero_unless, tensor_ok, grads)
        updates, inner_state = wrapped.update(clean, state.inner, params, **extra_args)
        updates = jax.tree.map(lambda ok, u: _zero_unless(ok & loss_ok, u), tensor_ok, updates)
        lost = sum((jnp.sum(~ok, dtype=jnp.int32) for ok in jax.tree.leaves(tensor_ok)), jnp.int32(0))
        return updates, SkipNonFiniteState(
            inner=_keep_unless(loss_ok, inner_state, state.inner),
            num_skipped_updates=state.num_skipped_updates + (~loss_ok).astype(jnp.int32),
            num_skipped_tensors=state.num_skipped_tensors + jnp.where(loss_ok, lost, 0),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def l2_weight_decay(
    inner: optax.GradientTransformation, amount: float
) -> optax.GradientTransformationExtraArgs:
    """Returns `inner`, seeing the loss ½·`amount`·Σp² added to the user's: `amount`·p to the gradient, too.

    An L2 term on the gradient, not decoupled decay: a learned optimizer's steps know no learning rate to scale
    it by. 1e-6 has steadied large models. Gradients pass on in float32, where such a term is not rounded away.

    Deviation: the release adds `amount`·Σp² to the loss, twice the term whose gradient it adds.

    Raises:
      ValueError: If `amount` is negative or not finite.
    """
    if not (math.isfinite(amount) and amount >= 0):
        raise ValueError(f"`weight_decay` must be a finite number of at least 0, got {amount!r}")
    wrapped = optax.with_extra_args_support(inner)
    if amount == 0:
        return wrapped

    def update(grads: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        if params is None:
            raise ValueError(
                "weight decay needs the parameters: call `update(grads, state, params, value=loss)`"
            )
        decayed = jax.tree.map(lambda g, p: _float32(g) + amount * _float32(p), grads, params)
        if extra_args.get("value") is not None:
            squares = (jnp.sum(jnp.square(_float32(p))) for p in jax.tree.leaves(params))
            extra_args["value"] = _float32(extra_args["value"]) + 0.5 * amount * sum(squares, jnp.float32(0))
        updates, state = wrapped.update(decayed, state, params, **extra_args)
        return _cast_like(updates, grads), state

    return optax.GradientTransformationExtraArgs(wrapped.init, update)


class AccumulationState(NamedTuple):
    """The wrapped optimizer's state and the gradients that wait for its next update."""

    inner: Any
    mean_grads: Any
    """Float32 tree like the parameters; None, which costs nothing, where every gradient is an update."""
    mean_loss: jax.Array  # scalar float32
    num_accumulated: jax.Array  # scalar int32: gradients in the means
    every: jax.Array  # scalar int32: gradients per update
    max_training_steps: jax.Array  # scalar int32: what `every` was chosen for


def accumulate_above(
    make: Callable[[int], optax.GradientTransformation], *, num_steps: int, max_training_steps: int
) -> optax.GradientTransformationExtraArgs:
    """Returns an optimizer that makes at most `max_training_steps` updates in a run of `num_steps` gradients.

    Longer runs than an optimizer was trained for are made shorter: the mean of k = ⌈steps/max⌉ gradients, and
    of their losses, is one update, and parameters stand still in between. The optimizer is told the number of
    updates that will happen, ⌊steps/k⌋, as in the release; rounded up, its schedule would end before its end.

    Shorter runs carry no accumulator. Only an update costs the optimizer's time; between updates its state
    passes through untouched. Keywords other than `value` are those of the k-th gradient.

    Args:
      make: From a number of updates to the optimizer for them.
      num_steps: Gradients in the run.
      max_training_steps: Updates that the optimizer may see. At least 1.

    Raises:
      ValueError: If one of the numbers is not a positive whole number.
    """
    check_num_steps(num_steps)
    check_num_steps(max_training_steps, name="max_training_steps")
    every = gradients_per_update(num_steps, max_training_steps)
    wrapped = optax.with_extra_args_support(make(num_steps // every))

    def init(params: Any) -> AccumulationState:
        return AccumulationState(
            inner=wrapped.init(params),
            mean_grads=zero_means(params) if every > 1 else None,
            mean_loss=jnp.zeros((), jnp.float32),
            num_accumulated=jnp.zeros((), jnp.int32),
            every=jnp.array(every, jnp.int32),
            max_training_steps=jnp.array(max_training_steps, jnp.int32),
        )

    def update(
        grads: Any, state: AccumulationState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, AccumulationState]:
        if state.mean_grads is None:
            updates, inner_state = wrapped.update(grads, state.inner, params, **extra_args)
            return updates, state._replace(inner=inner_state)
        state, extra_args = _accumulate(state, grads, extra_args)

        def flush() -> tuple[Any, AccumulationState]:
            updates, inner_state = wrapped.update(state.mean_grads, state.inner, params, **extra_args)
            return _cast_like(updates, grads), state._replace(
                inner=inner_state,
                mean_grads=jax.tree.map(jnp.zeros_like, state.mean_grads),
                mean_loss=jnp.zeros_like(state.mean_loss),
                num_accumulated=jnp.zeros_like(state.num_accumulated),
            )

        def wait() -> tuple[Any, AccumulationState]:
            return jax.tree.map(jnp.zeros_like, grads), state

        is_full = state.num_accumulated >= state.every
        if isinstance(is_full, jax.core.Tracer):
            return jax.lax.cond(is_full, flush, wait)
        return flush() if is_full else wait()  # uncompiled, a `cond` would be compiled anew at every call

    return optax.GradientTransformationExtraArgs(init, update)


def gradients_per_update(num_steps: int, max_training_steps: int) -> int:
    """Returns the smallest k with at most `max_training_steps` updates in `num_steps` gradients."""
    return -(-num_steps // max_training_steps)


def zero_means(params: Any) -> Any:
    """Returns float32 zeros like `params`: what `AccumulationState.mean_grads` starts from."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=jnp.float32), params)


def _accumulate(
    state: AccumulationState, grads: Any, extra_args: dict[str, Any]
) -> tuple[AccumulationState, dict[str, Any]]:
    """Returns the state with one more gradient and loss in its means, and the keywords with the mean loss."""
    number = state.num_accumulated + 1
    share = 1.0 / number.astype(jnp.float32)
    state = state._replace(
        mean_grads=jax.tree.map(lambda mean, g: mean + share * (_float32(g) - mean), state.mean_grads, grads),
        num_accumulated=number,
    )
    if extra_args.get("value") is None:
        return state, extra_args
    state = state._replace(
        mean_loss=state.mean_loss + share * (_float32(extra_args["value"]) - state.mean_loss)
    )
    return state, {**extra_args, "value": state.mean_loss}


def _is_finite(is_stacked: bool, grad: jax.Array) -> jax.Array:
    """Returns whether the tensor is finite, as a scalar; of a stack, for each layer: [layers, 1, …]."""
    axes = tuple(range(int(is_stacked), jnp.ndim(grad)))
    return jnp.all(jnp.isfinite(grad), axis=axes, keepdims=is_stacked)


def _zero_unless(ok: jax.Array, array: jax.Array) -> jax.Array:
    return jnp.where(ok, array, jnp.zeros_like(array))


def _keep_unless(ok: jax.Array, new: T, old: T) -> T:
    """Returns `new` where `ok`, else `old`; what an update hands on untouched (theta) is not even copied."""
    return jax.tree.map(lambda n, o: o if n is o else jnp.where(ok, n, o), new, old)


def _cast_like(tree: T, like: Any) -> T:
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)


def _float32(x: Any) -> jax.Array:
    return jnp.asarray(x).astype(jnp.float32)
