"""Full evolution strategies: the meta-gradient of whole unrolls.

Each task is trained from scratch to the end by pairs of optimizers at θ ± σε that share initialisation, data
and every other random number; what counts is the final loss, re-evaluated on fresh batches, unless the objective
says the mean or the lowest loss. Unbiased for the smoothed meta-loss at any horizon, at the price of one number
learned per unroll.

[1] Metz et al. 2022, "VeLO", App. D.1–D.4.  [2] Salimans et al. 2017, arXiv:1703.03864.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from lopt.estimators.evolution import (
    EvolutionConfig,
    draw_horizon,
    draw_lanes,
    evolution_gradient,
    family_of,
)
from lopt.inner_loop import InnerState
from lopt.lanes import init_lanes
from lopt.objective import meta_loss, run_window, start_trace
from lopt.outer_schedule import END_OF_SCHEDULE
from lopt.perturbations.shared import LaneThetas, lane_thetas
from lopt.types import (
    Combination,
    Dynamic,
    LearnedOptimizer,
    MetaGradient,
    PRNGKey,
    PyTree,
    Scalar,
    TaskFamily,
    TaskState,
    Theta,
)


class FullEsConfig(EvolutionConfig):
    """Has no numbers of its own."""

    estimator: Literal["full_es"] = "full_es"

    @property
    def is_stateless(self) -> bool:
        """Whole unrolls leave nothing behind."""
        return True

    @property
    def gives_combination(self) -> bool:
        """Perturbations are drawn afresh."""
        return True

    def build(self, family: TaskFamily, learned_optimizer: LearnedOptimizer) -> FullEs:
        """Returns the estimator for one static configuration."""
        return FullEs(self, family, learned_optimizer)


class FullEs:
    """The estimator that a `FullEsConfig` describes; stateless."""

    def __init__(self, config: FullEsConfig, family: TaskFamily, learned_optimizer: LearnedOptimizer):
        self.config = config
        self.family = family_of(config, family)
        self.learned_optimizer = learned_optimizer

    def init(self, theta: Theta, key: PRNGKey) -> PyTree:
        """Returns the empty state: every estimate starts its tasks afresh."""
        del theta, key
        return ()

    def estimate(
        self, theta: Theta, state: PyTree, key: PRNGKey, outer_step: int | Scalar = END_OF_SCHEDULE
    ) -> tuple[MetaGradient, PyTree]:
        """Returns the meta-gradient averaged over tasks and pairs, from horizon and tasks drawn with `key`."""
        return self.measure(theta, key, jnp.float32(self.config.sigma), outer_step), state

    def measure(
        self, theta: Theta, key: PRNGKey, sigma: Scalar, outer_step: int | Scalar = END_OF_SCHEDULE
    ) -> MetaGradient:
        """Returns what `estimate` does, with σ as a traced number.

        With σ = 0 both twins are theta itself: `meta_loss` then is the validation loss on the tasks that `key`
        draws, from the same compiled program, and the gradient is zero.
        """
        c = self.config
        lanes = c.num_tasks * c.num_pairs
        horizon_key, dynamic_key, run_key, epsilon_key = jax.random.split(key, 4)
        horizon = draw_horizon(c, horizon_key, outer_step)
        dynamics = draw_lanes(c, self.family, dynamic_key)
        directions = c.perturbation.sample(theta, epsilon_key, lanes)
        thetas = lane_thetas(self.learned_optimizer, theta, directions, sigma)
        losses = self._losses(thetas, dynamics, horizon, jax.random.split(run_key, lanes))
        gradient, metrics, weights = evolution_gradient(c, directions, losses, sigma)
        num_inner_steps = jnp.float32(2 * lanes) * horizon.astype(jnp.float32)
        metrics = {"horizon": horizon.astype(jnp.float32), **metrics}
        combination = Combination(epsilon_key, weights)
        return MetaGradient(gradient, jnp.mean(losses), num_inner_steps, metrics, combination)

    def _losses(self, twins: LaneThetas, dynamics: Dynamic, horizon: Scalar, keys: PRNGKey) -> jax.Array:
        """Returns the meta-losses [lanes, 2]."""
        axes = self.family.dynamic_axes()
        initial = init_lanes(self.family, dynamics, keys)
        # Twins share all but theta.
        run = jax.vmap(self._meta_loss, in_axes=(twins.twin_axes, None, None, None, None))
        over_lanes = jax.vmap(run, in_axes=(twins.lane_axes, axes, None, 0, 0))
        return over_lanes(twins.thetas, dynamics, horizon, initial, keys)

    def _meta_loss(
        self, theta: Theta, dynamic: Dynamic, horizon: Scalar, initial: TaskState, key: PRNGKey
    ) -> Scalar:
        c = self.config
        task = self.family.task(dynamic)
        optimizer = self.learned_optimizer.transform(theta, num_steps=horizon)
        inner = InnerState(initial, optimizer.init(initial.params))
        trace = start_trace(task, inner, key, c)
        inner, trace = run_window(task, optimizer, inner, trace, key, start=0, stop=horizon, objective=c)
        return meta_loss(task, inner, trace, key, num_steps=horizon, objective=c)
