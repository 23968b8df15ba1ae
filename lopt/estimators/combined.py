"""Back-propagated and evolution-strategy gradients of one smoothed loss, merged weight by weight.

Both estimate the gradient of E[L(θ + σε)] over ε. Back-propagation at the perturbed thetas (the reparameterisation
gradient) has low variance where training is well behaved; where it is chaotic its variance explodes while the
evolution strategy's stays bounded. Each weight of theta takes the mean of the two by inverse variance:

    g = (v_es · g_rp + v_rp · g_es) / (v_rp + v_es),      v the empirical variances over a task's pairs

Deviation from [1]: the pairs are split in two halves, and each half's gradients are weighed by the other's
variances. A weight that depends on the very numbers it weighs makes the mean biased (by a tenth on a parabola with
four pairs); this one does not. Only a half whose back-propagated gradients vary more than `EXPLODED` times as much
as evolution's in either half, or are not finite, is left to the evolution strategy whatever the other says.

[1] Metz et al. 2018, "Understanding and correcting pathologies in the training of learned optimizers", 3.
"""

from __future__ import annotations

from typing import Literal, Self

import jax
import jax.numpy as jnp
from pydantic import model_validator

from lopt.estimators.differentiable import window_loss
from lopt.estimators.evolution import EvolutionConfig, mean_over_tasks
from lopt.estimators.trajectory import OneTrajectory, Trajectory, WindowedConfig, one_copy
from lopt.estimators.unrolled_backprop import longest_window
from lopt.outer_schedule import END_OF_SCHEDULE
from lopt.types import LearnedOptimizer, MetaGradient, PRNGKey, Scalar, TaskFamily, Theta

EXPLODED = 100.0
MIN_PAIRS = 4
"""A variance needs two pairs, and there are two halves."""


class CombinedConfig(EvolutionConfig, WindowedConfig):
    """Windows that both gradients are taken of; the next goes on from theta's own state."""

    estimator: Literal["combined"] = "combined"
    task_normalization: Literal["none", "unit_norm"] = "none"
    second_derivatives: bool = True

    @model_validator(mode="after")
    def _pairs_make_two_halves(self) -> Self:
        if self.num_pairs < MIN_PAIRS or self.num_pairs % 2:
            raise ValueError(
                f"combined needs an even `num_pairs` of at least {MIN_PAIRS}, to have a variance in each half, got "
                f"num_pairs={self.num_pairs}"
            )
        if self.difference_clip is not None:
            raise ValueError("combined weighs losses by their variance; `difference_clip` must be None")
        return self

    def build(self, family: TaskFamily, learned_optimizer: LearnedOptimizer) -> Combined:
        """Returns the estimator for one static configuration."""
        return Combined(self, family, learned_optimizer)


class Combined(OneTrajectory[CombinedConfig]):
    """The estimator that a `CombinedConfig` describes; its state is a trajectory."""

    def estimate(
        self, theta: Theta, state: Trajectory, key: PRNGKey, outer_step: int | Scalar = END_OF_SCHEDULE
    ) -> tuple[MetaGradient, Trajectory]:
        """Returns the next window's meta-gradient and the trajectory at its end."""
        c, lanes, sigma = self.config, self.unroller.num_lanes, jnp.float32(self.config.sigma)
        epsilon_key, begin_key, length_key = jax.random.split(key, 3)
        directions = c.perturbation.sample(theta, epsilon_key, lanes)
        own = jax.tree.map(lambda t: jnp.broadcast_to(t, (1, lanes, *t.shape)), theta)
        twins = directions.twins(theta, sigma)
        thetas = jax.tree.map(lambda both, one: jnp.concatenate([both, one]), twins, own)
        before = self.unroller.ready(thetas, state, begin_key, outer_step)
        end = self.unroller.window_end(before, length_key, outer_step)
        losses, gradients = self._differentiate(twins, before, end)
        after, _ = self.unroller.advance(own, one_copy(before, 2), end)
        by_backprop = jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)  # of both twins
        per_lane = directions.by_task(lanes)
        weights = jax.vmap(lambda d, u: d.weights(u))(per_lane, losses.T[:, None])
        by_evolution = jax.vmap(lambda d, w: d.weighted_sum(w))(per_lane, weights)
        by_evolution = jax.tree.map(lambda g: g / (2.0 * sigma), by_evolution)
        merged, share = self._merge(by_backprop, by_evolution)
        gradient, metrics = mean_over_tasks(c, merged)
        num_steps = (end - before.step).astype(jnp.float32)
        result = MetaGradient(
            gradient,
            jnp.mean(losses),
            jnp.float32(3 * lanes) * num_steps,
            {
                "horizon": before.horizon.astype(jnp.float32),
                "window": num_steps,
                "backprop_share": share,
                **metrics,
            },
        )
        return result, after

    def _differentiate(self, twins: Theta, before: Trajectory, end: Scalar) -> tuple[jax.Array, Theta]:
        """Returns the twins' losses [2, lanes] and gradients, leaves [2, lanes, *leaf]."""
        c, axes = self.config, self.unroller.family.dynamic_axes()
        loss = window_loss(
            self.unroller, before, end, max_steps=longest_window(c), second_derivatives=c.second_derivatives
        )
        both = lambda tree: jax.tree.map(lambda leaf: leaf[:2], tree)
        over_lanes = jax.vmap(jax.value_and_grad(loss, has_aux=True), in_axes=(0, axes, 0, 0, 0))
        over_twins = jax.vmap(over_lanes, in_axes=(0, None, 0, 0, None))
        (losses, _), gradients = over_twins(
            twins, before.dynamics, both(before.inner), both(before.trace), before.keys
        )
        return losses, gradients

    def _merge(self, by_backprop: Theta, by_evolution: Theta) -> tuple[Theta, Scalar]:
        """Returns every task's merged gradient, leaves [tasks, *leaf], and the mean weight of back-propagation."""
        c = self.config
        merge = lambda rp, es: jax.vmap(merge_by_variance)(_halves(rp, c.num_tasks), _halves(es, c.num_tasks))
        leaves, treedef = jax.tree.flatten(by_backprop)
        merged = [merge(rp, es) for rp, es in zip(leaves, jax.tree.leaves(by_evolution), strict=True)]
        count = sum(weight.size for _, weight in merged)
        share = jnp.stack([jnp.sum(weight) for _, weight in merged]).sum() / count
        return jax.tree.unflatten(treedef, [value for value, _ in merged]), share


def _halves(leaf: jax.Array, num_tasks: int) -> jax.Array:
    """Returns [lanes, *shape] as [tasks, 2, pairs / 2, *shape]."""
    return leaf.reshape(num_tasks, 2, -1, *leaf.shape[1:])


def merge_by_variance(by_backprop: jax.Array, by_evolution: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the mean [*shape] of two estimates of one quantity, and the weight [2, *shape] that the first had.

    Args:
      by_backprop: Samples [2, n, *shape]: two halves of n each. One that is not finite takes all weight away.
      by_evolution: The same of the other estimate.
    """
    finite = jnp.all(jnp.isfinite(by_backprop), axis=1)  # [2, *shape]
    backprop = jnp.where(finite[:, None], by_backprop, 0.0)
    variance_rp = jnp.where(finite, jnp.var(backprop, axis=1, ddof=1), jnp.inf)
    variance_es = jnp.var(by_evolution, axis=1, ddof=1)
    other_rp, other_es = variance_rp[::-1], variance_es[::-1]
    total = other_rp + other_es
    weight = jnp.where(total > 0.0, other_es / total, 0.5)
    exploded = variance_rp > EXPLODED * variance_es.max(axis=0, keepdims=True)
    weight = jnp.where(exploded | ~jnp.isfinite(other_rp), 0.0, weight)
    halves = weight * jnp.mean(backprop, axis=1) + (1.0 - weight) * jnp.mean(by_evolution, axis=1)
    return jnp.mean(halves, axis=0), weight
