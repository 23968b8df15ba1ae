"""The meta-gradient by back-propagation through the steps of a window; the state is carried to the next.

With a window as long as the horizon this is the exact gradient of one unroll; shorter, it is truncated
back-propagation through time: cheap, of low variance, biased, and where training is chaotic it explodes (Metz et
al. 2018, Fig. 1 and 5a). `second_derivatives` counts how theta changes the gradients that later steps see, too.

[1] Andrychowicz et al. 2016, arXiv:1606.04474 (first order).  [2] Wichrowska et al. 2017, 4.3 (second order).
[3] Metz et al. 2018, 2.3 and 2.4.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from lopt.estimators.differentiable import window_loss
from lopt.estimators.evolution import mean_over_tasks
from lopt.estimators.trajectory import OneTrajectory, Trajectory, WindowedConfig
from lopt.outer_schedule import END_OF_SCHEDULE
from lopt.types import LearnedOptimizer, MetaGradient, PRNGKey, Scalar, TaskFamily, Theta


class UnrolledBackpropConfig(WindowedConfig):
    """Windows that are differentiated. A gradient has no loss to rank: only "none" and "unit_norm" apply."""

    estimator: Literal["unrolled_backprop"] = "unrolled_backprop"
    task_normalization: Literal["none", "unit_norm"] = "none"
    second_derivatives: bool = True

    @property
    def max_steps(self) -> int:
        """The most steps that a window has."""
        return longest_window(self)

    def build(self, family: TaskFamily, learned_optimizer: LearnedOptimizer) -> UnrolledBackprop:
        """Returns the estimator for one static configuration."""
        return UnrolledBackprop(self, family, learned_optimizer)


def longest_window(config: WindowedConfig) -> int:
    """Returns the largest number of steps that a window of `config` can have."""
    return min(config.max_horizon, round(config.unroll_length * (1.0 + config.length_jitter) + 0.5))


class UnrolledBackprop(OneTrajectory[UnrolledBackpropConfig]):
    """The estimator that an `UnrolledBackpropConfig` describes; its state is a trajectory."""

    def estimate(
        self, theta: Theta, state: Trajectory, key: PRNGKey, outer_step: int | Scalar = END_OF_SCHEDULE
    ) -> tuple[MetaGradient, Trajectory]:
        """Returns the next window's meta-gradient and the trajectory at its end.

        A task whose gradient is not finite counts as zero; `fraction_not_finite` says how many did.
        """
        c, lanes = self.config, self.unroller.num_lanes
        begin_key, length_key = jax.random.split(key)
        thetas = jax.tree.map(lambda t: jnp.broadcast_to(t, (1, lanes, *t.shape)), theta)
        before = self.unroller.ready(thetas, state, begin_key, outer_step)
        end = self.unroller.window_end(before, length_key, outer_step)
        loss = window_loss(
            self.unroller, before, end, max_steps=c.max_steps, second_derivatives=c.second_derivatives
        )
        axes = (None, self.unroller.family.dynamic_axes(), 0, 0, 0)
        only = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)
        (losses, carried), gradients = jax.vmap(jax.value_and_grad(loss, has_aux=True), in_axes=axes)(
            theta, before.dynamics, only(before.inner), only(before.trace), before.keys
        )
        gradients, not_finite = drop_not_finite(gradients)
        gradient, metrics = mean_over_tasks(c, gradients)
        inner, trace = jax.tree.map(lambda leaf: leaf[None], carried)
        num_steps = (end - before.step).astype(jnp.float32)
        result = MetaGradient(
            gradient,
            jnp.mean(losses),
            jnp.float32(lanes) * num_steps,
            {
                "horizon": before.horizon.astype(jnp.float32),
                "window": num_steps,
                "fraction_not_finite": not_finite,
                **metrics,
            },
        )
        return result, before._replace(inner=inner, trace=trace, step=end)


class Finite(NamedTuple):
    """Gradients without those that overflowed, and the share of those."""

    gradients: Theta
    fraction_not_finite: Scalar


def drop_not_finite(gradients: Theta) -> Finite:
    """Returns leaves [lanes, …] with zero for every lane that has a number which is not finite anywhere."""
    leaves = jax.tree.leaves(gradients)
    finite = jnp.stack(
        [jnp.all(jnp.isfinite(leaf.reshape(leaf.shape[0], -1)), axis=1) for leaf in leaves]
    ).all(axis=0)
    clean = jax.tree.map(
        lambda leaf: jnp.where(finite.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, 0.0), gradients
    )
    return Finite(clean, jnp.mean(1.0 - finite.astype(jnp.float32)))
