"""Re-parameterisation of weights: the same function at initialisation, another problem for an optimizer.

    trained parameters  p = c · w,     network weights  w = p / c

Gradients with respect to p are those with respect to w divided by c, so an optimizer that is not invariant to
scale takes steps that are wrong by c². Metz et al. 2022 (arXiv:2211.09760), App. C.5, item 1.

[1] Lv et al. 2017, "Learning gradient descent: better generalization and longer horizons".
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, model_validator

from lopt.training_gradient import LossAndGradient, value_and_grad
from lopt.types import Batch, Params, TaskFamily, TaskState
from task_generator.augmentations.base import AugmentationConfig
from task_generator.augmentations.wrapped import WrappedTask
from task_generator.distributions import Categorical
from task_generator.initializers import split_vector

Level = Literal["none", "global", "tensor", "parameter"]
LEVELS = Categorical(values=("none", "none", "global", "global", "tensor", "tensor", "parameter"))
RANGES = ((0.001, 1000.0), (0.01, 100.0), (0.1, 10.0))


class ReparametrizeConfig(AugmentationConfig):
    """One scale for all weights, per tensor, or per number, each log-uniform on [low, high]."""

    augmentation: Literal["reparametrize"] = "reparametrize"
    level: Level = Field(description="What shares a scale: everything, a tensor, or nothing.")
    low: float = Field(gt=0, description="Smallest scale.")
    high: float = Field(gt=0, description="Largest scale.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"`low` must not exceed `high`, got {self.low} and {self.high}. Swap them.")
        return self

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Self | None:
        """Draws a level from the paper's seven slots, then one of its three ranges."""
        level = LEVELS.sample(rng)
        low, high = RANGES[int(rng.integers(len(RANGES)))]
        return None if level == "none" else cls.model_validate({"level": level, "low": low, "high": high})

    def could_sample(self) -> bool:
        """Returns whether the prior could draw this configuration."""
        return LEVELS.contains(self.level) and (self.low, self.high) in RANGES

    def includes_identity(self) -> bool:
        """Returns whether all scales could be 1."""
        return self.level == "none" or self.low <= 1.0 <= self.high

    def apply(self, family: TaskFamily) -> TaskFamily:
        """Returns the family with scaled weights; unchanged for the level "none"."""
        return family if self.level == "none" else ReparametrizedFamily(self, family)

    def label(self) -> str:
        """Returns e.g. "reparam tensor 0.1–10"."""
        return "" if self.level == "none" else f"reparam {self.level} {self.low:g}–{self.high:g}"


class ReparametrizedDynamic(NamedTuple):
    """The inner family's dynamic configuration, and the scales that loss and initialisation share."""

    inner: Any
    scales: Params  # like params: [] per leaf (global, tensor) or the leaf's shape (parameter)


@dataclasses.dataclass(frozen=True)
class ReparametrizedFamily:
    """A family whose parameters are the inner family's, multiplied by the scales; these are dynamic too."""

    config: ReparametrizeConfig
    inner: TaskFamily

    def sample_dynamic(self, key: jax.Array) -> ReparametrizedDynamic:
        """Draws the inner dynamic configuration, and scales for parameters of its shapes."""
        inner_key, scale_key = jax.random.split(key)
        inner = self.inner.sample_dynamic(inner_key)
        template = jax.eval_shape(lambda k: self.inner.task(inner).init(k).params, inner_key)
        return ReparametrizedDynamic(inner, self._sample_scales(scale_key, template))

    def _sample_scales(self, key: jax.Array, template: Params) -> Params:
        leaves, structure = jax.tree.flatten(template)
        level = self.config.level
        shapes = [leaf.shape if level == "parameter" else () for leaf in leaves]
        count = 1 if level == "global" else sum(math.prod(shape) for shape in shapes)
        low, high = math.log(self.config.low), math.log(self.config.high)
        scales = jnp.exp(jax.random.uniform(key, (count,), jnp.float32, low, high))
        if level == "global":
            scales = jnp.broadcast_to(scales, (len(leaves),))
        return jax.tree.unflatten(structure, split_vector(scales, shapes))

    def dynamic_axes(self) -> ReparametrizedDynamic:
        """Returns the inner family's axes, and 0 for the scales (a prefix for the whole tree)."""
        return ReparametrizedDynamic(self.inner.dynamic_axes(), 0)

    def task(self, dynamic: ReparametrizedDynamic) -> ReparametrizedTask:
        """Returns the problem that `dynamic` selects."""
        return ReparametrizedTask(self.config, self.inner.task(dynamic.inner), dynamic.scales)


@dataclasses.dataclass(frozen=True)
class ReparametrizedTask(WrappedTask[ReparametrizeConfig]):
    """A task on scaled parameters."""

    scales: Params

    def init(self, key: jax.Array) -> TaskState:
        """Returns the inner task's fresh parameters times the scales."""
        state = self.inner.init(key)
        return state._replace(params=jax.tree.map(jnp.multiply, state.params, self._aligned(state.params)))

    def loss(self, state: TaskState, key: jax.Array, batch: Batch) -> tuple[jax.Array, TaskState]:
        """Returns the inner task's loss at the parameters divided by the scales."""
        loss, inner_state = self.inner.loss(self._unscaled(state), key, batch)
        return loss, inner_state._replace(params=state.params)

    def value_and_grad(self, state: TaskState, key: jax.Array, batch: Batch) -> LossAndGradient:
        """Returns what the inner task shows in training, its gradient divided by the scales."""
        (loss, inner_state), grads = value_and_grad(self.inner, self._unscaled(state), key, batch)
        scaled = jax.tree.map(jnp.divide, grads, self._aligned(state.params))
        return (loss, inner_state._replace(params=state.params)), scaled

    def _unscaled(self, state: TaskState) -> TaskState:
        return state._replace(params=jax.tree.map(jnp.divide, state.params, self._aligned(state.params)))

    def _aligned(self, params: Params) -> Params:
        """The scales in their leaves' ranks and types, so that nothing is promoted implicitly."""
        return jax.tree.map(
            lambda s, p: s.reshape(s.shape or (1,) * p.ndim).astype(p.dtype), self.scales, params
        )


jax.tree_util.register_dataclass(ReparametrizedFamily, data_fields=["inner"], meta_fields=["config"])
