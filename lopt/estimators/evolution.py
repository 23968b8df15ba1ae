"""What all estimators by evolution strategies share: tasks in lanes, twins, and the gradient from their losses.

A lane is one task under one pair of twins; lanes of one task lie side by side. Twins share the dynamic
configuration, the initialisation, the data and every other random number.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from pydantic import Field, model_validator

from lopt.fitness import TaskNormalization, unit_norm, utilities
from lopt.lanes import ChoicesPerTask, repeat_dynamics, sample_dynamics
from lopt.lengths import AnyLengths, LogUniformConfig
from lopt.objective import ObjectiveConfig, worst_loss
from lopt.outer_schedule import PiecewiseLinear
from lopt.perturbations import AntitheticConfig, AnyPerturbation
from lopt.perturbations.antithetic import squared_norm
from lopt.perturbations.base import Directions
from lopt.types import Dynamic, LearnedOptimizer, PRNGKey, Scalar, TaskFamily, Theta

Choices = Literal["per_work_unit", "per_task"]


class TasksConfig(ObjectiveConfig):
    """Fields of every estimator: what is differentiated, on which tasks, for how long."""

    min_horizon: int = Field(ge=1)
    max_horizon: int = Field(ge=1)
    """The horizon is drawn between these, both included, once per unroll."""
    horizons: AnyLengths = LogUniformConfig()
    """How."""
    horizon_limit: PiecewiseLinear | None = None
    """Largest horizon by outer step: both ends of the range stay below it until it has grown past them. None: no
    limit."""
    num_tasks: int = Field(ge=1)
    """Dynamic configurations vectorised over one static one."""
    task_normalization: TaskNormalization = "none"
    """What a task's losses or gradient are made into before tasks are averaged (VeLO D.4; `lopt.fitness`)."""
    choices: Choices = "per_work_unit"
    """What shares activation and initialiser: all tasks of an unroll (one branch runs), or none (all run)."""

    @model_validator(mode="after")
    def _horizons_in_order(self) -> TasksConfig:
        if self.min_horizon > self.max_horizon:
            raise ValueError(
                f"`min_horizon` must not exceed `max_horizon`, got {self.min_horizon} > {self.max_horizon}"
            )
        require_reaches(self.horizon_limit, "horizon_limit", self.max_horizon, "max_horizon")
        return self

    @property
    def lanes_per_task(self) -> int:
        """Lanes that one task fills."""
        return 1

    @property
    def is_stateless(self) -> bool:
        """Whether every estimate starts its tasks afresh."""
        return False

    @property
    def gives_combination(self) -> bool:
        """Whether its gradient is a weighted sum of directions that one key draws: `MetaGradient.combination`."""
        return False

    def build(self, family: TaskFamily, learned_optimizer: LearnedOptimizer) -> Any:
        """Returns the estimator for one static configuration."""
        raise NotImplementedError


class EvolutionConfig(TasksConfig):
    """Fields of every evolution strategy. The critical ones have no default."""

    sigma: float = Field(gt=0)
    """Standard deviation of the perturbations of theta."""
    num_pairs: int = Field(ge=1)
    """Pairs of twins per task."""
    perturbation: AnyPerturbation = AntitheticConfig()
    difference_clip: float | None = Field(None, gt=0)
    """Largest |L⁺ − L⁻| of a pair: bounds what one diverging twin can do. None: no bound."""

    @property
    def lanes_per_task(self) -> int:
        """One lane per pair."""
        return self.num_pairs


def family_of(config: TasksConfig, family: TaskFamily) -> TaskFamily:
    """Returns the family as the configuration wants its choices made."""
    return ChoicesPerTask(family) if config.choices == "per_task" else family


def draw_lanes(config: TasksConfig, family: TaskFamily, key: PRNGKey) -> Dynamic:
    """Returns every lane's dynamic configuration, leaves [lanes, …]; the lanes of a task have the same."""
    return repeat_dynamics(family, sample_dynamics(family, key, config.num_tasks), config.lanes_per_task)


def evolution_gradient(
    config: EvolutionConfig,
    directions: Directions,
    losses: jax.Array,
    sigma: Scalar,
    *,
    scale: float | Scalar = 1.0,
) -> tuple[Theta, dict[str, Scalar], jax.Array]:
    """Returns the mean over tasks of each task's estimate, what its losses and spread were, and its weights.

        g = 1 / (2σN) · Σᵢ (u⁺ᵢ ε⁺ᵢ + u⁻ᵢ ε⁻ᵢ),    u the task's utilities, N its pairs

    The weights [lanes, 2] are what multiplies the directions, so that the gradient is `weighted_sum` of them.

    Args:
      config: Of the estimator.
      directions: Of the lanes.
      losses: [lanes, 2], the twins' meta-losses.
      sigma: What the twins were perturbed with. 0 measures theta itself; the gradient then is zero.
      scale: What every loss counts, after differences have been clipped: a window's share of the unroll.
    """
    held = losses if config.difference_clip is None else _clip_differences(losses, config.difference_clip)
    own = (scale * held).reshape(config.num_tasks, config.num_pairs, 2)
    by_task = directions.by_task(config.num_tasks)
    shaped = jax.vmap(lambda one: utilities(one, config.task_normalization))(own)
    # σ = 0 makes the twins equal and the gradient zero, not 0/0.
    shaped = shaped / jnp.maximum(2.0 * sigma * config.num_pairs, 1e-12)
    weights = jax.vmap(lambda d, u: d.weights(u))(by_task, shaped)
    squares = jax.vmap(lambda d, w: d.squared_norm(w))(by_task, weights)  # of each task's gradient
    if config.task_normalization == "unit_norm":
        # Rounding can leave the square of a sum that cancels below zero.
        weights = weights / jnp.maximum(jnp.sqrt(jnp.maximum(squares, 0.0)), 1e-12)[:, None, None]
        squares = (squares > 0.0).astype(jnp.float32)
    of_lanes = weights.reshape(losses.shape) / config.num_tasks
    gradient = directions.weighted_sum(of_lanes)
    spread = jnp.maximum(jnp.mean(squares) - squared_norm(gradient), 0.0)
    differences = losses[:, 0] - losses[:, 1]
    metrics = {
        "gradient_noise": jnp.sqrt(spread / max(config.num_tasks - 1, 1)),
        "pair_difference_rms": jnp.sqrt(jnp.mean(jnp.square(differences))),
        "fraction_at_cap": jnp.mean((losses >= worst_loss(config)).astype(jnp.float32)),
    }
    return gradient, metrics, of_lanes


def mean_over_tasks(config: TasksConfig, gradients: Theta) -> tuple[Theta, dict[str, Scalar]]:
    """Returns the mean of the tasks' gradients, leaves [tasks, *leaf], and how far they differ.

    `gradient_noise` is the Euclidean norm of the mean's standard error, as the spread over tasks has it; zero for
    a single task, which has no spread.
    """
    if config.task_normalization == "unit_norm":
        gradients = jax.vmap(unit_norm)(gradients)
    mean = jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)
    spread = sum(jnp.sum(jnp.var(g, axis=0)) for g in jax.tree.leaves(gradients))
    return mean, {"gradient_noise": jnp.sqrt(spread / max(config.num_tasks - 1, 1))}


def _clip_differences(losses: jax.Array, limit: float) -> jax.Array:
    middle = jnp.mean(losses, axis=1, keepdims=True)
    return middle + jnp.clip(losses - middle, -limit / 2, limit / 2)


def draw_horizon(config: TasksConfig, key: PRNGKey, outer_step: int | Scalar) -> Scalar:
    """Returns the horizon of an unroll that starts at `outer_step`, int32."""
    low = limited(config.min_horizon, config.horizon_limit, outer_step)
    high = limited(config.max_horizon, config.horizon_limit, outer_step)
    return config.horizons.sample(key, low, high)


def limited(length: int, limit: PiecewiseLinear | None, outer_step: int | Scalar) -> int | Scalar:
    """Returns the length, or what the limit is at `outer_step`, rounded, where that is less."""
    if limit is None:
        return length
    return jnp.minimum(jnp.maximum(jnp.round(limit.at(outer_step)).astype(jnp.int32), 1), length)


def require_reaches(limit: PiecewiseLinear | None, name: str, length: int, length_name: str) -> None:
    """Refuses a limit that ends below what it is a limit of.

    Raises:
      ValueError: If so.
    """
    if limit is not None and limit.last < length:
        raise ValueError(
            f"`{name}` must grow to `{length_name}` = {length} or beyond, got {limit.last:g} at its end. Lower "
            f"`{length_name}`, or add a point to the schedule."
        )
