"""Gradients estimated by evolution strategies, as if the loss could not be differentiated.

    g = 1/N · Σᵢ εᵢ · (L(w + σεᵢ) − L(w − σεᵢ)) / (2σ),     εᵢ ~ N(0, I)

Unbiased for the gradient of the loss smoothed by N(0, σ²I). Twins share the batch and everything that the loss
draws. The loss that is reported, and the model state, are those at the parameters themselves. One pair at a time is
in memory: sixteen at once took 14 times as much and were no faster (MLPs on two cores).

It reads the `loss` of the task inside: what other augmentations do to gradients, they must do outside of it, as in
the order of the registry.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.5, item 2; Salimans et al. 2017 (arXiv:1703.03864). That the loss
shown in training is the unperturbed one is ours: the paper doesn't say.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.perturbations import AntitheticConfig
from lopt.training_gradient import LossAndGradient
from lopt.types import Batch, Params, PRNGKey, Scalar, Task, TaskState
from task_generator.augmentations.wrapped import WrappedTask, WrappingConfig, cast_like, own_key, to_float32
from task_generator.distributions import Categorical, Distribution, LogUniform


class ESGradientsConfig(WrappingConfig):
    """`num_pairs` antithetic pairs of standard deviation `std`."""

    augmentation: Literal["es_gradients"] = "es_gradients"
    std: float = Field(gt=0, description="Standard deviation of the perturbations.")
    num_pairs: int = Field(ge=1, le=4096, description="Antithetic pairs per gradient.")

    probability: ClassVar[float] = 0.08

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the paper's ranges."""
        return {
            "std": LogUniform(low=0.001, high=0.1),
            "num_pairs": Categorical(values=(1, 2, 4, 8, 16)),
        }

    def cost(self, cost: dict[str, float]) -> dict[str, float]:
        """Returns the cost of two losses per pair and one to show; a gradient costs as much as three losses."""
        losses = (2 * self.num_pairs + 1) / 3
        repeated = ("flops_per_step", "values_per_step", "rows_per_step", "reads_per_step", "depth")
        return {name: value * (losses if name in repeated else 1.0) for name, value in cost.items()}

    def wrap(self, task: Task) -> Task:
        """Returns the task with estimated gradients."""
        return ESGradientsTask(self, task)

    def label(self) -> str:
        """Returns e.g. "es 4 pairs σ 0.01"."""
        return f"es {self.num_pairs} pair{'s' * (self.num_pairs > 1)} σ {self.std:.2g}"


class ESGradientsTask(WrappedTask[ESGradientsConfig]):
    """A task whose gradient is estimated from losses."""

    def value_and_grad(self, state: TaskState, key: PRNGKey, batch: Batch) -> LossAndGradient:
        """Returns the loss and next state at the parameters, and the estimate of the smoothed gradient."""
        std, num_pairs = self.config.std, self.config.num_pairs
        params = to_float32(state.params)
        epsilon_key = own_key(key, self.config.augmentation)

        def loss_at(moved: Params) -> Scalar:
            return self.inner.loss(state._replace(params=cast_like(moved, state.params)), key, batch)[0]

        def add_pair(index: Scalar, total: Params) -> Params:
            pair = AntitheticConfig().sample(params, jax.random.fold_in(epsilon_key, index), 1)
            losses = jax.vmap(jax.vmap(loss_at))(pair.twins(params, std))  # [2 twins, 1 pair]
            return jax.tree.map(jnp.add, total, pair.weighted_sum(losses.T))

        total = jax.lax.fori_loop(0, num_pairs, add_pair, jax.tree.map(jnp.zeros_like, params))
        mean = jax.tree.map(lambda g: g / (2.0 * std * num_pairs), total)
        return self.inner.loss(state, key, batch), cast_like(mean, state.params)
