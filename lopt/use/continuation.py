"""More training after a finished run: what becomes of the optimizer's state and of the number of steps.

A learned optimizer is conditioned on the length of its run, and its steps have shrunk by the run's end. Four
ways to go on, after [1]; P is the number of updates made, T₁ the number of steps of the first run, T₂ that of the
continuation:

    increase_steps   state kept,   progress P,   steps P + T₂     best in half of the 620 tasks of [1]
    reset_steps      state kept,   progress 0,   steps T₂         next best, in a quarter
    full_reset       new state,    progress 0,   steps T₂         the loss spikes, then recovers in part
    naive            state kept,   progress P,   steps T₁         drifts slowly; worst in half of them

[1] Metz et al. 2022, "VeLO", 4.4.3. There P = T₁; a run that was stopped early is extended from where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax

from lopt.registry import unknown_name_message
from lopt.use.binding import BoundState, bound_states, check_num_steps, map_bound
from lopt.use.guard_rails import AccumulationState, gradients_per_update, zero_means

Continuation = Literal["increase_steps", "reset_steps", "full_reset", "naive"]

PROGRESS = "progress"
"""The field of an architecture's state that counts updates out of `num_steps`."""


def continue_run(
    optimizer: optax.GradientTransformation,
    state: Any,
    params: Any,
    *,
    num_steps: int,
    how: Continuation = "increase_steps",
) -> Any:
    """Returns the state with which `optimizer` trains for another `num_steps` updates.

    Called between runs, not inside a compiled step; the compiled step of the first run serves the second. Under
    `accumulate_above`, progress and steps are counted anew in updates of as many gradients as the longer run
    needs; where that means to start accumulating, the state gains accumulators and the step compiles once more.

    Args:
      optimizer: From `lopt.load` or `lopt.bind`, under any wrappers.
      state: Its state at the end of the run.
      params: The parameters at the end of the run.
      num_steps: Updates still to make; without a meaning for "naive".
      how: See the module's table.

    Raises:
      ValueError: If `num_steps` is not a positive whole number, `how` is not one of the four, the state is not
        that of a bound optimizer, or, for "full_reset", it carries other weights than `optimizer` was made with.
    """
    check_num_steps(num_steps)
    if how not in get_args(Continuation):
        raise ValueError(unknown_name_message("way to continue a run", how, list(get_args(Continuation))))
    bound_states(state)  # raises where there is nothing to continue
    if how == "naive":
        return state
    if how == "full_reset":
        state = _start_again(optimizer, state, params)
    return _extend(state, params, num_steps, keep_progress=how == "increase_steps")


def _extend(state: Any, params: Any, num_steps: int, *, keep_progress: bool) -> Any:
    """Returns the state for `num_steps` more gradients, on top of those made so far or starting at none."""

    def visit(node: Any) -> Any:
        if isinstance(node, BoundState):
            done = _updates_made(node) if keep_progress else 0
            return _retime(node, done + num_steps, lambda x: x if keep_progress else jnp.zeros_like(x))
        if isinstance(node, AccumulationState):
            return _extend_accumulation(node, params, num_steps, keep_progress=keep_progress)
        return node

    return jax.tree.map(visit, state, is_leaf=lambda node: isinstance(node, BoundState | AccumulationState))


def _extend_accumulation(
    state: AccumulationState, params: Any, num_steps: int, *, keep_progress: bool
) -> AccumulationState:
    """Counts in updates of k gradients, k being what the whole run needs. Gradients left over are dropped."""
    before = int(state.every)
    made = max(map(_updates_made, bound_states(state.inner)))
    total = num_steps + (made * before if keep_progress else 0)
    every = gradients_per_update(total, int(state.max_training_steps))
    progress = lambda x: x * before // every if keep_progress else jnp.zeros_like(x)
    return state._replace(
        inner=map_bound(lambda bound: _retime(bound, total // every, progress), state.inner),
        mean_grads=zero_means(params if state.mean_grads is None else state.mean_grads)
        if every > 1
        else None,
        mean_loss=jnp.zeros_like(state.mean_loss),
        num_accumulated=jnp.zeros_like(state.num_accumulated),
        every=jnp.full_like(state.every, every),
    )


def _retime(bound: BoundState, num_steps: int, progress: Callable[[jax.Array], jax.Array]) -> BoundState:
    """Returns the state told that the run has `num_steps` updates, its progress changed."""
    inner = jax.tree_util.tree_map_with_path(
        lambda path, leaf: progress(leaf) if _is_progress(path) else leaf, bound.inner
    )
    return bound._replace(inner=inner, num_steps=jnp.full_like(bound.num_steps, num_steps))


def _updates_made(bound: BoundState) -> int:
    """Returns the progress so far; an architecture that does not count is taken to have finished its run."""
    counts = [
        int(jnp.max(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(bound.inner)
        if _is_progress(path)
    ]
    return max(counts, default=int(bound.num_steps))


def _is_progress(path: tuple[Any, ...]) -> bool:
    return bool(path) and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == PROGRESS


def _start_again(optimizer: optax.GradientTransformation, old: Any, params: Any) -> Any:
    """Returns a fresh state, which weights may shape; refuses where they are not those of the old one."""
    new = optimizer.init(params)
    thetas = [[bound.theta for bound in bound_states(state)] for state in (old, new)]
    if not all(bool(jnp.array_equal(a, b)) for a, b in zip(*map(jax.tree.leaves, thetas), strict=True)):
        raise ValueError(
            "a full reset needs an `optimizer` made with the weights that `state` carries; these are others. Bind "
            "it to them, or `rebind` the state to the optimizer's"
        )
    return new
