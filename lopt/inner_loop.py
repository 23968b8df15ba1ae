"""The inner loop: training one task with one optax transformation, inside one compiled program.

The horizon is the trip count of a `fori_loop`, so one program serves every length; batches are drawn in-graph
from keys that are a function of the step, so antithetic twins see the same data and a resumed run is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lopt.gradient_location import gradient_params
from lopt.training_gradient import value_and_grad
from lopt.types import Params, PRNGKey, Scalar, Split, Task, TaskState
from lopt.validation_loss import validation_due

EvalParams = Callable[[Any, Params], Params]
"""(optimizer state, parameters) → the parameters to evaluate."""


class InnerState(NamedTuple):
    """What inner training carries from step to step."""

    task_state: TaskState
    optimizer_state: Any


class LearningCurve(NamedTuple):
    """Losses along a run, at P points."""

    step: jax.Array  # [P] int32: updates made before the point
    losses: dict[str, jax.Array]  # split → [P]


def init_inner(task: Task, optimizer: optax.GradientTransformationExtraArgs, key: PRNGKey) -> InnerState:
    """Returns a freshly initialised task and optimizer."""
    task_state = task.init(key)
    return InnerState(task_state, optimizer.init(task_state.params))


def inner_step(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    state: InnerState,
    key: PRNGKey,
    *,
    split: Split = "train",
) -> tuple[InnerState, Scalar]:
    """Makes one update on one batch of `split`; returns the new state and the scalar loss that it was made from.

    Loss and gradient are what the task shows in training (`value_and_grad`), taken where the optimizer asks for
    them (`gradient_params`): at the parameters, unless it keeps an attended offset. The update is applied to the
    parameters. An optimizer that asks for a validation loss (`validation_due`) is told that of a batch of
    "inner_valid", as `valid_value`. Where steps are vectorised, it is computed in every step.
    """
    # Two derivations instead of one split: a task that draws nothing in its loss then never computes the second.
    loss_key = jax.random.fold_in(key, 1)
    params = state.task_state.params
    attended = state.task_state._replace(params=gradient_params(state.optimizer_state, params))
    # The scopes are what a profile of the compiled program can tell its kernels by.
    with jax.named_scope("sample_batch"):
        batch = task.batch(key, split)
    with jax.named_scope("gradient"):
        (loss, task_state), grads = value_and_grad(task, attended, loss_key, batch)
    valid_value = _validation(task, state, key)
    with jax.named_scope("optimizer"):
        updates, optimizer_state = optimizer.update(
            grads, state.optimizer_state, params, value=loss, **valid_value
        )
    new_params = optax.apply_updates(params, updates)
    return InnerState(task_state._replace(params=new_params), optimizer_state), loss


def _validation(task: Task, state: InnerState, key: PRNGKey) -> dict[str, Scalar]:
    """Returns `valid_value`, NaN where none is due, for an optimizer that reads it."""
    due = validation_due(state.optimizer_state)
    if due is None:
        return {}
    batch_key = jax.random.fold_in(key, 2)
    measured = lambda: mean_loss(task, state.task_state, batch_key, num_batches=1, split="inner_valid")
    return {"valid_value": jax.lax.cond(due, measured, lambda: jnp.float32(jnp.nan))}


def unroll(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    state: InnerState,
    key: PRNGKey,
    *,
    start: int | Scalar,
    stop: int | Scalar,
) -> InnerState:
    """Returns the state after the steps `start` ≤ t < `stop`; both may be traced.

    Step t uses `fold_in(key, t)`, so two windows of a run equal the whole.
    """

    def body(step: Scalar, carry: InnerState) -> InnerState:
        return inner_step(task, optimizer, carry, jax.random.fold_in(key, step))[0]

    return jax.lax.fori_loop(jnp.asarray(start, jnp.int32), jnp.asarray(stop, jnp.int32), body, state)


def mean_loss(
    task: Task, state: TaskState, key: PRNGKey, *, num_batches: int, split: Split = "train"
) -> Scalar:
    """Returns the mean loss over `num_batches` fresh batches of `split`: a scalar, not normalised."""

    def one(batch_key: PRNGKey) -> Scalar:
        return task.loss(state, jax.random.fold_in(batch_key, 1), task.batch(batch_key, split))[0]

    return jnp.mean(jax.lax.map(one, jax.random.split(key, num_batches)))


def train_curve(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    key: PRNGKey,
    *,
    eval_every: int | Scalar,
    num_points: int,
    splits: tuple[Split, ...],
    num_eval_batches: int,
    eval_params: EvalParams | None = None,
) -> LearningCurve:
    """Trains from scratch for `(num_points − 1) · eval_every` updates, evaluating every `eval_every`.

    The evaluation batches are the same at every point of a run, so that a curve's noise is not its evaluation's.

    Args:
      task: What to train.
      optimizer: The transformation; it gets `value`, and the losses here never reach it otherwise.
      key: Determines initialisation, data and evaluation batches.
      eval_every: Updates between points; may be traced.
      num_points: P, the first point being the initialisation. Static.
      splits: The splits to evaluate.
      num_eval_batches: Batches per point and split.
      eval_params: For an optimizer that is evaluated elsewhere than where it trains (schedule-free averages, say
        `optax.contrib.schedule_free_eval_params`): called with its state and the parameters, returns the
        parameters to evaluate. None for the parameters themselves. Training never sees its result.

    Returns:
      The steps [P], and per split the mean losses [P], not normalised.
    """
    init_key, train_key, eval_key = jax.random.split(key, 3)
    state = init_inner(task, optimizer, init_key)
    stride = jnp.asarray(eval_every, jnp.int32)

    def evaluate(inner: InnerState) -> dict[str, Scalar]:
        task_state = inner.task_state
        if eval_params is not None:
            task_state = task_state._replace(params=eval_params(inner.optimizer_state, task_state.params))
        return {
            split: mean_loss(task, task_state, eval_key, num_batches=num_eval_batches, split=split)
            for split in splits
        }

    # One evaluation site in the program: the last window's training is skipped by making it zero steps long.
    def scan_body(carry: InnerState, index: Scalar) -> tuple[InnerState, dict[str, Scalar]]:
        losses = evaluate(carry)
        stop = jnp.where(index == num_points - 1, index * stride, (index + 1) * stride)
        return unroll(task, optimizer, carry, train_key, start=index * stride, stop=stop), losses

    indices = jnp.arange(num_points, dtype=jnp.int32)
    _, losses = jax.lax.scan(scan_body, state, indices)
    return LearningCurve(step=indices * stride, losses=losses)
