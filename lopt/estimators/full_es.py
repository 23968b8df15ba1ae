"""Full evolution strategies: the meta-gradient of the final loss of whole unrolls.

Each task is trained from scratch to the end by pairs of optimizers at θ ± σε that share initialisation, data
and every other random number, and the final loss is re-evaluated on fresh batches. Unbiased for the smoothed
meta-loss at any horizon, at the price of one number learned per unroll.

[1] Metz et al. 2022, "VeLO", App. D.1–D.4.  [2] Salimans et al. 2017, arXiv:1703.03864.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from pydantic import Field, model_validator

from lopt.config import FrozenConfig
from lopt.inner_loop import InnerState, unroll
from lopt.lanes import ChoicesPerTask, init_lanes, repeat_dynamics, sample_dynamics
from lopt.meta_loss import MetaLossScale, final_loss, scaled
from lopt.perturbation import AntitheticPairs, pair_gradient, perturbed, sample_pairs
from lopt.types import (
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

TaskNormalization = Literal["none", "unit_norm"]
Choices = Literal["per_work_unit", "per_task"]


class FullEsConfig(FrozenConfig):
    """Numbers of the estimator. The critical ones have no default."""

    estimator: Literal["full_es"] = "full_es"
    sigma: float = Field(gt=0)
    """Standard deviation of the perturbations of theta."""
    min_horizon: int = Field(ge=1)
    max_horizon: int = Field(ge=1)
    """The horizon is drawn log-uniformly between these, both included, once per estimate."""
    num_tasks: int = Field(ge=1)
    """Dynamic configurations vectorised over one static one."""
    num_pairs: int = Field(ge=1)
    """Antithetic pairs per task."""
    num_final_batches: int = Field(4, ge=1)
    meta_loss_scale: MetaLossScale = "log"
    loss_cap: float = Field(10.0, gt=0)
    """Largest normalised loss (1 is chance level); divergence counts as this."""
    difference_clip: float | None = Field(None, gt=0)
    """Largest |L⁺ − L⁻| of a pair: bounds what one diverging twin can do. None: no bound."""
    task_normalization: TaskNormalization = "none"
    """"unit_norm": each task's gradient is scaled to length one before averaging (VeLO D.4)."""
    choices: Choices = "per_work_unit"
    """What shares activation and initialiser: all tasks of an estimate (one branch runs), or none (all run)."""

    @model_validator(mode="after")
    def _horizons_in_order(self) -> FullEsConfig:
        if self.min_horizon > self.max_horizon:
            raise ValueError(
                f"`min_horizon` must not exceed `max_horizon`, got {self.min_horizon} > {self.max_horizon}"
            )
        return self

    def build(self, family: TaskFamily, learned_optimizer: LearnedOptimizer) -> FullEs:
        """Returns the estimator for one static configuration."""
        return FullEs(self, family, learned_optimizer)


class FullEs:
    """The estimator that a `FullEsConfig` describes; stateless."""

    def __init__(self, config: FullEsConfig, family: TaskFamily, learned_optimizer: LearnedOptimizer):
        self.config = config
        self.family = ChoicesPerTask(family) if config.choices == "per_task" else family
        self.learned_optimizer = learned_optimizer

    def init(self, theta: Theta, key: PRNGKey) -> PyTree:
        """Returns the empty state: every estimate starts its tasks afresh."""
        del theta, key
        return ()

    def estimate(self, theta: Theta, state: PyTree, key: PRNGKey) -> tuple[MetaGradient, PyTree]:
        """Returns the meta-gradient averaged over tasks and pairs, from horizon and tasks drawn with `key`."""
        return self.measure(theta, key, jnp.float32(self.config.sigma)), state

    def measure(self, theta: Theta, key: PRNGKey, sigma: Scalar) -> MetaGradient:
        """Returns what `estimate` does, with σ as a traced number.

        With σ = 0 both twins are theta itself: `meta_loss` then is the validation loss on the tasks that `key`
        draws, from the same compiled program, and the gradient is zero.
        """
        c = self.config
        lanes = c.num_tasks * c.num_pairs
        horizon_key, dynamic_key, run_key, epsilon_key = jax.random.split(key, 4)
        horizon = sample_horizon(horizon_key, c.min_horizon, c.max_horizon)
        dynamics = repeat_dynamics(
            self.family, sample_dynamics(self.family, dynamic_key, c.num_tasks), c.num_pairs
        )
        pairs = sample_pairs(theta, epsilon_key, lanes)
        losses = self._pair_losses(
            perturbed(theta, pairs, sigma), dynamics, horizon, jax.random.split(run_key, lanes)
        )
        gradient = self._gradient(pairs, losses[:, 0] - losses[:, 1], sigma)
        metrics = {
            "horizon": horizon.astype(jnp.float32),
            "pair_difference_rms": jnp.sqrt(jnp.mean(jnp.square(losses[:, 0] - losses[:, 1]))),
            "fraction_at_cap": jnp.mean((losses >= self._worst_loss()).astype(jnp.float32)),
        }
        num_inner_steps = jnp.float32(2 * lanes) * horizon.astype(jnp.float32)
        return MetaGradient(gradient, jnp.mean(losses), num_inner_steps, metrics)

    def _worst_loss(self) -> Scalar:
        return scaled(jnp.float32(self.config.loss_cap), self.config.meta_loss_scale)

    def _pair_losses(self, twins: Theta, dynamics: Dynamic, horizon: Scalar, keys: PRNGKey) -> jax.Array:
        """Returns the meta-losses [lanes, 2]; leaves of `twins` are [2, lanes, *leaf]."""
        axes = self.family.dynamic_axes()
        initial = init_lanes(self.family, dynamics, keys)
        run = jax.vmap(self._meta_loss, in_axes=(0, None, None, None, None))  # twins share all but theta
        return jax.vmap(run, in_axes=(1, axes, None, 0, 0))(twins, dynamics, horizon, initial, keys)

    def _meta_loss(
        self, theta: Theta, dynamic: Dynamic, horizon: Scalar, initial: TaskState, key: PRNGKey
    ) -> Scalar:
        c = self.config
        task = self.family.task(dynamic)
        optimizer = self.learned_optimizer.transform(theta, num_steps=horizon)
        inner = InnerState(initial, optimizer.init(initial.params))
        inner = unroll(task, optimizer, inner, jax.random.fold_in(key, 1), start=0, stop=horizon)
        return final_loss(
            task,
            inner,
            jax.random.fold_in(key, 2),
            num_batches=c.num_final_batches,
            cap=c.loss_cap,
            scale=c.meta_loss_scale,
        )

    def _gradient(self, pairs: AntitheticPairs, differences: jax.Array, sigma: Scalar) -> Theta:
        """Returns the mean over tasks of each task's estimate; `differences` [lanes], grouped by task."""
        c = self.config
        if c.difference_clip is not None:
            differences = jnp.clip(differences, -c.difference_clip, c.difference_clip)
        by_task = jax.tree.map(lambda e: e.reshape(c.num_tasks, c.num_pairs, *e.shape[1:]), pairs)
        gradients = jax.vmap(pair_gradient, in_axes=(0, 0, None))(
            by_task, differences.reshape(c.num_tasks, c.num_pairs), sigma
        )
        if c.task_normalization == "unit_norm":
            gradients = jax.vmap(unit_norm)(gradients)
        return jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)


def sample_horizon(key: PRNGKey, low: int, high: int) -> Scalar:
    """Returns an int32 drawn log-uniformly from [low, high], both included."""
    log_low, log_high = jnp.log(jnp.float32(low)), jnp.log(jnp.float32(high + 1))
    draw = jnp.exp(log_low + jax.random.uniform(key) * (log_high - log_low))
    return jnp.clip(jnp.floor(draw).astype(jnp.int32), low, high)


def unit_norm(tree: Theta) -> Theta:
    """Returns the tree scaled to Euclidean norm one; an all-zero tree stays zero."""
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))
    return jax.tree.map(lambda leaf: leaf / jnp.maximum(norm, 1e-12), tree)
