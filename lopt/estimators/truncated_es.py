"""Truncated evolution strategies: the meta-gradient of one window, as if nothing before it depended on theta.

Twins start from the same state, wherever the trajectory has come; the next window goes on from the state that
theta itself reaches (a third run), or from the positive twin's. Cheap updates at any horizon, and biased: what a
step does to later windows is not seen.

[1] Metz et al. 2018, 2.4 and 3; Metz et al. 2020, 3.1.  [2] Vicol et al. 2021, arXiv:2112.13835 (the bias).
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from lopt.estimators.evolution import EvolutionConfig, evolution_gradient
from lopt.estimators.trajectory import OneTrajectory, Trajectory, WindowedConfig, one_copy
from lopt.outer_schedule import END_OF_SCHEDULE
from lopt.types import Combination, LearnedOptimizer, MetaGradient, PRNGKey, Scalar, TaskFamily, Theta

Carry = Literal["theta", "positive_twin"]


class TruncatedEsConfig(EvolutionConfig, WindowedConfig):
    """Windows, and whose state is carried to the next."""

    estimator: Literal["truncated_es"] = "truncated_es"
    carry: Carry = "theta"
    """"theta": a run of the unperturbed theta, half as much again to compute. "positive_twin": that one's state,
    whose perturbation is then part of the trajectory."""

    @property
    def gives_combination(self) -> bool:
        """Every window's perturbations are drawn afresh."""
        return True

    def build(self, family: TaskFamily, learned_optimizer: LearnedOptimizer) -> TruncatedEs:
        """Returns the estimator for one static configuration."""
        return TruncatedEs(self, family, learned_optimizer)


class TruncatedEs(OneTrajectory[TruncatedEsConfig]):
    """The estimator that a `TruncatedEsConfig` describes; its state is a trajectory."""

    def estimate(
        self, theta: Theta, state: Trajectory, key: PRNGKey, outer_step: int | Scalar = END_OF_SCHEDULE
    ) -> tuple[MetaGradient, Trajectory]:
        """Returns the next window's meta-gradient and the trajectory at its end."""
        c, lanes = self.config, self.unroller.num_lanes
        sigma = jnp.float32(c.sigma)
        epsilon_key, begin_key, length_key = jax.random.split(key, 3)
        directions = c.perturbation.sample(theta, epsilon_key, lanes)
        thetas = directions.twins(theta, sigma)
        if c.carry == "theta":
            thetas = jax.tree.map(
                lambda both, t: jnp.concatenate([both, jnp.broadcast_to(t, (1, lanes, *t.shape))]),
                thetas,
                theta,
            )
        before = self.unroller.ready(thetas, state, begin_key, outer_step)
        end = self.unroller.window_end(before, length_key, outer_step)
        after, losses = self.unroller.advance(thetas, before, end)
        gradient, metrics, weights = evolution_gradient(c, directions, losses[:2].T, sigma)
        num_steps = (end - before.step).astype(jnp.float32)
        result = MetaGradient(
            gradient,
            jnp.mean(losses[:2]),
            jnp.float32(losses.size) * num_steps,
            {"horizon": before.horizon.astype(jnp.float32), "window": num_steps, **metrics},
            Combination(epsilon_key, weights),
        )
        return result, one_copy(after, 2 if c.carry == "theta" else 0)
