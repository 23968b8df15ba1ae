"""What units of work are expected to take, so that the longest start first and workers get equal sums.

    cost = (seconds of a gradient step + price · parameters) · inner steps

The seconds are the run-time model's. The price, of the learned optimizer's update, is measured: what units took
beyond their gradients, per parameter. The number of inner steps is the one that the unit will draw, where it
follows from the unit alone, else the expected one. Costs decide the order of work, and no result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from curriculum.worker import WorkResult, WorkUnit, key_from_seed
from lopt.estimators.evolution import TasksConfig, draw_horizon, limited
from lopt.estimators.full_es import FullEsConfig
from lopt.estimators.trajectory import Trajectory, WindowedConfig
from lopt.types import PRNGKey, PyTree, Scalar
from task_generator.task_config import TaskConfig


class WorkPlan:
    """Knows what an inner step of every task costs.

    Args:
      tasks: The static configurations.
      task_seconds: Predicted seconds of a gradient step of each.
    """

    def __init__(self, tasks: Sequence[TaskConfig], task_seconds: Sequence[float]) -> None:
        self._seconds = np.asarray(task_seconds, np.float64)
        self._num_params = np.asarray([max(task.approximate_cost()["num_params"], 1) for task in tasks])
        self._prices: deque[float] = deque(maxlen=len(tasks))

    @property
    def update_price(self) -> float:
        """Seconds per parameter and inner step; 0 until a unit has come back.

        The median of the latest units', as many as there are tasks: a machine that was busy moves one of them.
        """
        return max(float(np.median(self._prices)), 0.0) if self._prices else 0.0

    def costs(
        self, estimator: TasksConfig, units: Sequence[WorkUnit], states: Sequence[PyTree] = ()
    ) -> list[float]:
        """Returns what each task's unit is expected to take, in seconds for one of its lanes.

        Args:
          estimator: The units'.
          units: One per task; their seeds differ in the last number only.
          states: Of the estimator, where it has any.
        """
        per_step = self._seconds + self.update_price * self._num_params
        costs: list[float] = (per_step * inner_steps(estimator, units, states)).tolist()
        return costs

    def take(self, task: int, result: WorkResult) -> None:
        """Takes in what a unit of the task took."""
        if result.num_inner_steps > 0:
            per_step = result.cost.run_seconds / result.num_inner_steps
            self._prices.append((per_step - self._seconds[task]) / self._num_params[task])


def inner_steps(
    estimator: TasksConfig, units: Sequence[WorkUnit], states: Sequence[PyTree] = ()
) -> np.ndarray:
    """Returns the number of steps [units] that each unit trains its tasks for.

    Exact for whole unrolls. Of a window it is the mean length, or what is left of its trajectory if that is less.
    """
    outer_step = np.int32(units[0].outer_step)
    if isinstance(estimator, FullEsConfig):
        numbers = np.asarray([unit.seed[-1] for unit in units], np.uint32)
        return np.asarray(_horizons(estimator, key_from_seed(units[0].seed[:-1]), numbers, outer_step))
    steps = np.ones(len(units))
    if isinstance(estimator, WindowedConfig):
        steps *= float(_mean_window(estimator, outer_step))
    return np.minimum(steps, [_steps_left(state) for state in states]) if states else steps


@partial(jax.jit, static_argnums=0)
def _horizons(config: FullEsConfig, key: PRNGKey, numbers: jax.Array, outer_step: Scalar) -> jax.Array:
    """Returns what `FullEs.measure` draws from the keys that `numbers` make of `key`."""

    def draw(number: Scalar) -> Scalar:
        horizon_key = jax.random.split(jax.random.fold_in(key, number), 4)[0]
        return jnp.asarray(draw_horizon(config, horizon_key, outer_step))

    return jax.vmap(draw)(numbers)


@partial(jax.jit, static_argnums=0)
def _mean_window(config: WindowedConfig, outer_step: Scalar) -> Scalar:
    longest = limited(config.unroll_length, config.unroll_limit, outer_step)
    if config.min_unroll_length is None:
        return jnp.float32(longest)
    return config.window_lengths.mean(jnp.minimum(config.min_unroll_length, longest), longest)


def _steps_left(state: PyTree) -> float:
    """Returns the steps to the end of a state's trajectory; no bound where the next window starts another."""
    is_trajectory = lambda node: isinstance(node, Trajectory)
    for node in filter(is_trajectory, jax.tree.leaves(state, is_leaf=is_trajectory)):
        if not node.is_over:
            return float(node.stop - node.step)
    return np.inf
