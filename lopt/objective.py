"""What meta-training minimises: the losses of an unroll, made comparable between tasks, always finite.

    final      the loss after the last step, on fresh batches                                       [1] D.1
    mean       the mean over the steps of the loss before each                                      [2], [3]
    log_mean   the mean over the steps of log(loss + ε) − log(first loss + ε)                       [4] Eq. 14
    min        the lowest of them: where a run may be stopped early

Each on the training loss, or on that of the inner- or outer-validation split; as it is, as its logarithm, or
relative to what a baseline reached, (loss − baseline) / (first − baseline)                         [3] 3.2

[1] Metz et al. 2022, VeLO.  [2] Metz et al. 2018.  [3] Metz et al. 2020.  [4] Wichrowska et al. 2017.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from pydantic import Field, model_validator

from lopt.config import FrozenConfig
from lopt.inner_loop import InnerState, inner_step, mean_loss, unroll
from lopt.types import PRNGKey, Scalar, Split, Task

MetaLossScale = Literal["linear", "log", "baseline"]
Aggregate = Literal["final", "mean", "log_mean", "min"]

LOG_OFFSET = 1e-3
"""Added under the logarithm: losses below it count as solved (Wichrowska et al. 2017, Eq. 14, uses ε there)."""


class ObjectiveConfig(FrozenConfig):
    """The fields of an estimator that say what it differentiates."""

    aggregate: Aggregate = "final"
    split: Split = "train"
    """Whose loss counts. Other than "train", `mean`, `log_mean` and `min` cost a forward pass per step."""
    num_final_batches: int = Field(4, ge=1)
    """Fresh batches that a final loss (and the first one, where that is needed) is averaged over."""
    num_step_batches: int = Field(1, ge=1)
    """Fresh batches that the loss of every step is averaged over, where it is not the training loss."""
    meta_loss_scale: MetaLossScale = "log"
    loss_cap: float = Field(10.0, gt=0)
    """Largest normalised loss (1 is chance level); divergence counts as this."""
    baseline_loss: float | None = Field(
        None, description="Normalised loss that a baseline reached on the task."
    )
    """Of the scale "baseline". None: workers measure it, once per task (`lopt.baseline_loss`)."""

    @model_validator(mode="after")
    def _scale_fits(self) -> ObjectiveConfig:
        if self.aggregate == "log_mean" and self.meta_loss_scale != "log":
            raise ValueError(
                f"`aggregate` 'log_mean' is a mean of logarithms, got meta_loss_scale={self.meta_loss_scale!r}. "
                "Use 'log', or the aggregate 'mean'."
            )
        return self


class LossTrace(NamedTuple):
    """What a window's losses come to, scalars: enough for every aggregate."""

    total: Scalar
    lowest: Scalar
    first: Scalar
    """Normalised loss at the start of the unroll, where the objective needs it."""


def bounded(loss: Scalar, *, cap: float) -> Scalar:
    """Returns the loss clipped to ±cap; a non-finite one becomes the worst value, `cap`.

    This is the only place where divergence turns into a number.
    """
    return jnp.where(jnp.isfinite(loss), jnp.clip(loss, -cap, cap), cap)


def scaled(loss: Scalar, objective: ObjectiveConfig, first: Scalar) -> Scalar:
    """Returns the loss itself, or log(loss + 1e-3), which weighs relative improvements alike on every task, or the
    loss over what lies between the first and the baseline's.

    Raises:
      ValueError: If it shall be relative to a baseline's loss that nobody measured.
    """
    match objective.meta_loss_scale:
        case "linear":
            return loss
        case "log":
            return jnp.log(jnp.maximum(loss, 0.0) + LOG_OFFSET)
        case "baseline":
            baseline = objective.baseline_loss
            if baseline is None:
                raise ValueError(
                    "`meta_loss_scale` 'baseline' needs `baseline_loss`, the normalised loss that a baseline "
                    "reached on this task, got None. Measure it with `lopt.baseline_loss.measure_baseline_loss`."
                )
            span = jnp.maximum(
                first - baseline, LOG_OFFSET
            )  # a baseline that learned nothing measures nothing
            return jnp.clip((loss - baseline) / span, -objective.loss_cap, objective.loss_cap)


def worst_loss(objective: ObjectiveConfig) -> Scalar:
    """Returns the meta-loss of a run that diverged."""
    if objective.meta_loss_scale == "baseline":
        return jnp.float32(objective.loss_cap)
    return scaled(jnp.float32(objective.loss_cap), objective, jnp.float32(1.0))


def start_trace(task: Task, inner: InnerState, key: PRNGKey, objective: ObjectiveConfig) -> LossTrace:
    """Returns the trace before the first step; measures the first loss where the objective needs it."""
    first = jnp.float32(1.0)
    if objective.meta_loss_scale == "baseline" or objective.aggregate == "log_mean":
        first = _measured(task, inner, jax.random.fold_in(key, 3), objective)
    return LossTrace(jnp.float32(0.0), jnp.float32(jnp.inf), first)


def run_window(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    inner: InnerState,
    trace: LossTrace,
    key: PRNGKey,
    *,
    start: int | Scalar,
    stop: int | Scalar,
    objective: ObjectiveConfig,
) -> tuple[InnerState, LossTrace]:
    """Trains the steps `start` ≤ t < `stop` and returns the state after them, and the trace of their losses.

    The training loss of a step is what training saw: of the batch it was made from, and where gradients are delayed
    of the parameters that they are of. A validation loss is that of fresh batches at the step's own parameters.
    """
    key = jax.random.fold_in(key, 1)
    if objective.aggregate == "final":
        return unroll(task, optimizer, inner, key, start=start, stop=stop), trace

    def body(step: Scalar, carry: tuple[InnerState, LossTrace]) -> tuple[InnerState, LossTrace]:
        return traced_step(task, optimizer, *carry, jax.random.fold_in(key, step), objective=objective)

    bounds = jnp.asarray(start, jnp.int32), jnp.asarray(stop, jnp.int32)
    fresh = LossTrace(jnp.float32(0.0), jnp.float32(jnp.inf), trace.first)
    state: tuple[InnerState, LossTrace] = jax.lax.fori_loop(*bounds, body, (inner, fresh))
    return state


def traced_step(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    inner: InnerState,
    trace: LossTrace,
    key: PRNGKey,
    *,
    objective: ObjectiveConfig,
) -> tuple[InnerState, LossTrace]:
    """Makes one step and adds its loss to the trace."""
    after, loss = inner_step(task, optimizer, inner, key)
    if objective.split != "train":
        loss = mean_loss(
            task,
            inner.task_state,
            jax.random.fold_in(key, 4),
            num_batches=objective.num_step_batches,
            split=objective.split,
        )
    value = scaled(bounded(task.normalize(loss), cap=objective.loss_cap), objective, trace.first)
    return after, trace._replace(total=trace.total + value, lowest=jnp.minimum(trace.lowest, value))


def meta_loss(
    task: Task,
    inner: InnerState,
    trace: LossTrace,
    key: PRNGKey,
    *,
    num_steps: int | Scalar,
    objective: ObjectiveConfig,
) -> Scalar:
    """Returns the meta-loss of a finished run of `num_steps` steps; its trace is over all of them.

    Args:
      task: The problem.
      inner: The state after the last inner step.
      trace: Of all steps.
      key: The run's; the same for both antithetic twins. Draws the batches of a final loss.
      num_steps: What the trace is over.
      objective: What counts.
    """
    match objective.aggregate:
        case "final":
            return scaled(
                _measured(task, inner, jax.random.fold_in(key, 2), objective), objective, trace.first
            )
        case "mean":
            return trace.total / jnp.asarray(num_steps, jnp.float32)
        case "log_mean":
            return trace.total / jnp.asarray(num_steps, jnp.float32) - scaled(
                trace.first, objective, trace.first
            )
        case "min":
            return trace.lowest


def _measured(task: Task, inner: InnerState, key: PRNGKey, objective: ObjectiveConfig) -> Scalar:
    loss = mean_loss(
        task, inner.task_state, key, num_batches=objective.num_final_batches, split=objective.split
    )
    return bounded(task.normalize(loss), cap=objective.loss_cap)
