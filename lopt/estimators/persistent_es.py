"""Persistent evolution strategies: truncated windows without truncation's bias.

Each twin keeps its own state from window to window under new perturbations, and a window's loss is credited to the
sum ξ of all perturbations of the trajectory so far, this window's included:

    g = 1 / (2 σ N) · Σᵢ ξᵢ (L⁺ᵢ − L⁻ᵢ),     ξᵢ = Σ_{windows ≤ now} εᵢ

Averaged over the windows of a trajectory, whose losses add up to the unroll's, this is the gradient of the whole
unroll's smoothed loss, where every window is perturbed by itself.

Deviation from the released implementation (google/learned_optimization): there, a task that finishes inside a
window has its ξ reset before the loss of its last steps is counted, which are then credited to too little.
Here trajectories end where windows end, and ξ is reset only when the next one starts.

[1] Vicol et al. 2021, "Unbiased gradient estimation in unrolled computation graphs with persistent evolution
strategies", arXiv:2112.13835.  [2] Metz et al. 2020, 3.1.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from pydantic import model_validator

from lopt.estimators.evolution import EvolutionConfig, evolution_gradient
from lopt.estimators.trajectory import Trajectory, Unroller, WindowedConfig
from lopt.outer_schedule import END_OF_SCHEDULE
from lopt.perturbations.base import Directions
from lopt.types import LearnedOptimizer, MetaGradient, PRNGKey, Scalar, TaskFamily, Theta


class PersistentEsConfig(EvolutionConfig, WindowedConfig):
    """Windows whose losses add up."""

    estimator: Literal["persistent_es"] = "persistent_es"

    @model_validator(mode="after")
    def _losses_add_up(self) -> Self:
        if self.aggregate == "min":
            raise ValueError(
                "persistent_es needs losses that add up over windows, got aggregate='min'. Use 'mean', 'log_mean' "
                "or 'final', or the estimator full_es."
            )
        return self

    def build(self, family: TaskFamily, learned_optimizer: LearnedOptimizer) -> PersistentEs:
        """Returns the estimator for one static configuration."""
        return PersistentEs(self, family, learned_optimizer)


class PersistentState(NamedTuple):
    """What stays between windows: both twins' trajectories, and each lane's sum of perturbations."""

    trajectory: Trajectory
    perturbation_sum: Directions


class PersistentEs:
    """The estimator that a `PersistentEsConfig` describes."""

    def __init__(self, config: PersistentEsConfig, family: TaskFamily, learned_optimizer: LearnedOptimizer):
        self.config = config
        self.unroller = Unroller(config, family, learned_optimizer)

    def init(self, theta: Theta, key: PRNGKey) -> PersistentState:
        """Returns trajectories that are over: the first estimate starts others."""
        sample = lambda t: self._sample(t, key).dense()
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(sample, theta))
        return PersistentState(self.unroller.ended(theta, copies=2), zero)

    def estimate(
        self, theta: Theta, state: PersistentState, key: PRNGKey, outer_step: int | Scalar = END_OF_SCHEDULE
    ) -> tuple[MetaGradient, PersistentState]:
        """Returns the next window's meta-gradient and the state at its end."""
        c, sigma = self.config, jnp.float32(self.config.sigma)
        epsilon_key, begin_key, length_key = jax.random.split(key, 3)
        directions = self._sample(theta, epsilon_key)
        twins = directions.twins(theta, sigma)
        is_new = state.trajectory.is_over
        before = self.unroller.ready(twins, state.trajectory, begin_key, outer_step)
        total = jax.tree.map(
            lambda old, new: jnp.where(is_new, new, old + new), state.perturbation_sum, directions.dense()
        )
        end = self.unroller.window_end(before, length_key, outer_step)
        after, losses = self.unroller.advance(twins, before, end)
        share = self._share(before, after, outer_step)
        gradient, metrics, _ = evolution_gradient(c, total, losses.T, sigma, scale=share)
        num_steps = (end - before.step).astype(jnp.float32)
        result = MetaGradient(
            gradient,
            jnp.mean(losses),
            jnp.float32(losses.size) * num_steps,
            {"horizon": before.horizon.astype(jnp.float32), "window": num_steps, **metrics},
        )
        return result, PersistentState(after, total)

    def _sample(self, theta: Theta, key: PRNGKey) -> Directions:
        return self.config.perturbation.sample(theta, key, self.unroller.num_lanes)

    def _share(self, before: Trajectory, after: Trajectory, outer_step: int | Scalar) -> Scalar:
        """Returns what the window's loss counts in the unroll's, times the number of windows T / K.

        The mean over windows then is the gradient of the unroll's loss; K is their mean length. A trajectory that
        is cut before its horizon has no final loss.
        """
        length = self.unroller.mean_length(outer_step)
        if self.config.aggregate == "final":
            windows = before.horizon.astype(jnp.float32) / length
            return jnp.where(after.step >= before.horizon, windows, 0.0)
        return (after.step - before.step).astype(jnp.float32) / length
