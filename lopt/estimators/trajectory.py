"""Unrolls taken apart into windows: the state that stays between them, and how a window goes on from it.

All lanes of a trajectory share its horizon T and its step, so a window is one loop with one trip count and no lane
is masked. A trajectory that has come to its end is started afresh, with new tasks, at the beginning of the next
window, when the theta that the optimizer's state starts from is known.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp
from pydantic import Field, model_validator

from lopt.estimators.evolution import (
    TasksConfig,
    draw_horizon,
    draw_lanes,
    family_of,
    limited,
    require_reaches,
)
from lopt.inner_loop import InnerState
from lopt.lanes import init_lanes
from lopt.lengths import AnyLengths, UniformConfig
from lopt.objective import LossTrace, meta_loss, run_window, start_trace
from lopt.outer_schedule import PiecewiseLinear
from lopt.stand_in import stand_in
from lopt.types import Dynamic, LearnedOptimizer, PRNGKey, Scalar, TaskFamily, TaskState, Theta


class WindowedConfig(TasksConfig):
    """Fields of every estimator that looks at windows."""

    unroll_length: int = Field(ge=1)
    """Steps of a window, K; of the longest, where lengths are drawn."""
    min_unroll_length: int | None = Field(None, ge=1)
    """Every window's length is drawn between this and K. None: all are K long, give or take the jitter."""
    window_lengths: AnyLengths = UniformConfig()
    """How."""
    unroll_limit: PiecewiseLinear | None = None
    """Largest length by outer step, before jitter. None: no limit."""
    length_jitter: float = Field(0.0, ge=0, lt=1)
    """Every window's length is drawn from K · [1 − jitter, 1 + jitter] (Metz et al. 2018, 4.3 and C.3: 0.2)."""
    stagger: bool = True
    """Cut the first trajectory short at a random step, so that workers that start together do not end together."""

    @model_validator(mode="after")
    def _window_lengths_fit(self) -> Self:
        if self.min_unroll_length is not None and self.length_jitter:
            raise ValueError(
                "`min_unroll_length` and `length_jitter` both say how lengths vary, got "
                f"{self.min_unroll_length} and {self.length_jitter}. Leave one of them out."
            )
        if self.min_unroll_length is not None and self.min_unroll_length > self.unroll_length:
            raise ValueError(
                f"`min_unroll_length` must not exceed `unroll_length`, got {self.min_unroll_length} > "
                f"{self.unroll_length}"
            )
        require_reaches(self.unroll_limit, "unroll_limit", self.unroll_length, "unroll_length")
        return self


ConfigT = TypeVar("ConfigT", bound=WindowedConfig)


class Trajectory(NamedTuple):
    """An unroll on its way; `copies` is the leading axis of `inner` and `trace`, one per theta that trains."""

    dynamics: Dynamic
    """Every lane's, shared fields single."""
    keys: PRNGKey  # [lanes]
    horizon: Scalar
    """What the optimizer is told, T."""
    stop: Scalar
    """Where the trajectory ends: T, or earlier for a first one that is staggered."""
    step: Scalar
    number: Scalar
    """Of the trajectory; 0 stands in for the one before the first."""
    inner: InnerState  # leaves [copies, lanes, …]
    trace: LossTrace  # [copies, lanes]

    @property
    def is_over(self) -> Scalar:
        """Whether the next window starts another."""
        return self.step >= self.stop


class Unroller:
    """Carries trajectories of one static configuration forward.

    Args:
      config: Of the estimator, which says how long windows are, too.
      family: The tasks.
      learned_optimizer: What trains them.
    """

    def __init__(self, config: WindowedConfig, family: TaskFamily, learned_optimizer: LearnedOptimizer):
        self.config, self.learned_optimizer = config, learned_optimizer
        self.family = family_of(config, family)
        self.num_lanes = config.num_tasks * config.lanes_per_task

    def ended(self, theta: Theta, copies: int) -> Trajectory:
        """Returns a trajectory that has come to its end, so that the first window starts one."""
        thetas = jax.tree.map(lambda t: jnp.broadcast_to(t, (copies, self.num_lanes, *t.shape)), theta)
        key = jax.random.key(0)
        zero = jnp.zeros((), jnp.int32)
        shapes = jax.eval_shape(self._begin, thetas, key, zero, zero)
        stand_ins: Trajectory = jax.tree.map(stand_in, shapes)
        return stand_ins

    def ready(
        self, thetas: Theta, trajectory: Trajectory, key: PRNGKey, outer_step: int | Scalar
    ) -> Trajectory:
        """Returns the trajectory, or where it is over a new one before its first step.

        Shapes: leaves of `thetas` [copies, lanes, *leaf]; the trajectory's [copies, …], or [1, …] to be copied.
        """
        copies = jax.tree.leaves(thetas)[0].shape[0]
        copy = lambda leaf: jnp.broadcast_to(leaf, (copies, *leaf.shape[1:]))
        carried = trajectory._replace(
            inner=jax.tree.map(copy, trajectory.inner), trace=jax.tree.map(copy, trajectory.trace)
        )
        fresh = lambda: self._begin(thetas, key, trajectory.number, outer_step)
        result: Trajectory = jax.lax.cond(trajectory.is_over, fresh, lambda: carried)
        return result

    def window_end(self, trajectory: Trajectory, key: PRNGKey, outer_step: int | Scalar) -> Scalar:
        """Returns the step at which the next window ends, scalar int32."""
        c, longest = self.config, limited(self.config.unroll_length, self.config.unroll_limit, outer_step)
        if c.min_unroll_length is not None:
            steps = c.window_lengths.sample(key, jnp.minimum(c.min_unroll_length, longest), longest)
            return jnp.minimum(trajectory.step + steps, trajectory.stop)
        length = jnp.float32(longest)
        if c.length_jitter:
            jitter = c.length_jitter
            length = length * jax.random.uniform(key, (), jnp.float32, 1.0 - jitter, 1.0 + jitter)
        steps = jnp.maximum(jnp.round(length).astype(jnp.int32), 1)
        return jnp.minimum(trajectory.step + steps, trajectory.stop)

    def mean_length(self, outer_step: int | Scalar) -> Scalar:
        """Returns the mean length of windows that a trajectory's end does not cut short, float32."""
        c, longest = self.config, limited(self.config.unroll_length, self.config.unroll_limit, outer_step)
        if c.min_unroll_length is None:
            return jnp.float32(longest)
        return c.window_lengths.mean(jnp.minimum(c.min_unroll_length, longest), longest)

    def advance(self, thetas: Theta, trajectory: Trajectory, end: Scalar) -> tuple[Trajectory, jax.Array]:
        """Returns the trajectory at `end`, and what its losses since `trajectory.step` come to: [copies, lanes]."""
        c, start = self.config, trajectory.step

        def run(theta: Theta, dynamic: Dynamic, inner: InnerState, trace: LossTrace, key: PRNGKey) -> Any:
            task = self.family.task(dynamic)
            optimizer = self.learned_optimizer.transform(theta, num_steps=trajectory.horizon)
            inner, trace = run_window(task, optimizer, inner, trace, key, start=start, stop=end, objective=c)
            key = jax.random.fold_in(key, end)
            return inner, trace, meta_loss(task, inner, trace, key, num_steps=end - start, objective=c)

        axes = self.family.dynamic_axes()
        over_lanes = jax.vmap(run, in_axes=(0, axes, 0, 0, 0))
        over_copies = jax.vmap(over_lanes, in_axes=(0, None, 0, 0, None))
        inner, trace, losses = over_copies(
            thetas, trajectory.dynamics, trajectory.inner, trajectory.trace, trajectory.keys
        )
        return trajectory._replace(inner=inner, trace=trace, step=end), losses

    def _begin(self, thetas: Theta, key: PRNGKey, number: Scalar, outer_step: int | Scalar) -> Trajectory:
        c = self.config
        horizon_key, dynamic_key, run_key, cut_key = jax.random.split(key, 4)
        horizon = draw_horizon(c, horizon_key, outer_step)
        dynamics = draw_lanes(c, self.family, dynamic_key)
        keys = jax.random.split(run_key, self.num_lanes)
        initial = init_lanes(self.family, dynamics, keys)

        def start(theta: Theta, dynamic: Dynamic, state: TaskState, key: PRNGKey) -> Any:
            task = self.family.task(dynamic)
            optimizer = self.learned_optimizer.transform(theta, num_steps=horizon)
            inner = InnerState(state, optimizer.init(state.params))
            return inner, start_trace(task, inner, key, c)

        over_lanes = jax.vmap(start, in_axes=(0, self.family.dynamic_axes(), 0, 0))
        inner, trace = jax.vmap(over_lanes, in_axes=(0, None, None, None))(thetas, dynamics, initial, keys)
        stop = horizon
        if c.stagger:
            cut = jax.random.randint(cut_key, (), 1, horizon + 1)
            stop = jnp.where(number == 0, cut, horizon)
        zero = jnp.zeros((), jnp.int32)
        return Trajectory(dynamics, keys, horizon, stop, zero, number + 1, inner, trace)


class OneTrajectory(Generic[ConfigT]):
    """What an estimator is whose state is one trajectory, carried on by theta's own run or one of the twins'."""

    def __init__(self, config: ConfigT, family: TaskFamily, learned_optimizer: LearnedOptimizer):
        self.config = config
        self.unroller = Unroller(config, family, learned_optimizer)

    def init(self, theta: Theta, key: PRNGKey) -> Trajectory:
        """Returns a trajectory that is over: the first estimate starts one."""
        del key
        return self.unroller.ended(theta, copies=1)


def one_copy(trajectory: Trajectory, index: int) -> Trajectory:
    """Returns the trajectory with one copy only, axis kept."""
    take = lambda leaf: leaf[index : index + 1]
    return trajectory._replace(
        inner=jax.tree.map(take, trajectory.inner), trace=jax.tree.map(take, trajectory.trace)
    )
