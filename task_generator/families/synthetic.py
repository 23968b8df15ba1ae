"""Problems that are a formula: what the corpus of Wichrowska et al. 2017 and the noisy quadratic model share.

A configuration fixes the sizes; couplings, data, the starting point and the strength of the noise are arrays in the
dynamic configuration, so that one program trains on many different problems side by side. All splits are the same:
there is nothing to generalise to.

    normalised loss = (loss − lower bound) / (loss at the start − lower bound)

is 1 at the start and 0 where the problem is solved. The paper [1] shifts losses so that their minimum is zero; so
do we, and the lower bound is zero unless a family says otherwise.

Gradient noise ("normally distributed noise with standard deviations from 0.1 to 2.0", [1] 4.1.3) is added to what
an optimizer is shown (`value_and_grad`); the loss stays the true one, as in the release, so that evaluations have
no noise and the paper's logarithmic meta-loss is defined.

[1] Wichrowska et al. 2017 (arXiv:1703.04813), Section 4.1. Its text gives no dimensions; where the priors here have
some, they span those of the released problem sets.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from pydantic import Field, model_validator

from lopt.training_gradient import LossAndGradient
from lopt.types import Batch, Params, PyTree, Scalar, Split, TaskState
from task_generator.distributions import Categorical, Distribution
from task_generator.families.base import FamilyConfig, cap
from task_generator.initializers import split_vector

NOISE_RANGE = (0.1, 2.0)
"""Standard deviations of gradient noise that are drawn, log-uniformly."""
SMALLEST_SCALE = 1e-3
"""What a normalised loss is divided by at least, should a start happen to be a solution."""


class SyntheticDynamic(NamedTuple):
    """One problem."""

    problem: PyTree  # whatever the family's formula needs
    start: Params
    start_loss: jax.Array  # float32 []
    noise: (
        PyTree  # standard deviations like the parameters, leaves [] or of the parameter's shape; () for none
    )


class SyntheticConfig(FamilyConfig):
    """What a family of formulas says about itself."""

    has_examples: ClassVar[bool] = False

    def sample_problem(self, key: jax.Array) -> PyTree:
        """Returns the arrays that tell one problem of the family from another."""
        raise NotImplementedError

    def sample_start(self, key: jax.Array, problem: PyTree) -> Params:
        """Returns the parameters that training starts from, float32."""
        raise NotImplementedError

    def objective(self, params: Params, problem: PyTree, batch: Batch) -> Scalar:
        """Returns the loss. Parameters and batch may have a lower precision; the loss is float32."""
        raise NotImplementedError

    def draw(self, problem: PyTree, key: jax.Array) -> Batch:
        """Returns a batch of the problem's examples; of a problem without examples, nothing."""
        del problem, key
        return ()

    def all_examples(self, problem: PyTree) -> Batch:
        """Returns a batch that holds each of the problem's examples once."""
        del problem
        return ()

    def sample_noise(self, key: jax.Array, problem: PyTree, start: Params) -> PyTree:
        """Returns the standard deviations of the gradient noise, () for none."""
        del key, problem, start
        return ()

    def lower_bound(self) -> float:
        """Returns what no loss of a whole problem lies below."""
        return 0.0

    def build(self) -> SyntheticFamily:
        """Returns the family."""
        return SyntheticFamily(self)


class NoisyConfig(SyntheticConfig):
    """A problem whose gradients may be shown with noise."""

    noisy: bool = Field(False, description="Whether gradients are shown with normal noise added.")
    noise_std: float | None = Field(
        None, gt=0, description="Fixes the noise's standard deviation; None draws it from 0.1 to 2."
    )

    @model_validator(mode="after")
    def _check_noise(self) -> Self:
        if self.noise_std is not None and not self.noisy:
            raise ValueError(
                f"`noise_std` is {self.noise_std:g}, but `noisy` is false. Set `noisy`, or leave `noise_std` out."
            )
        return self

    def sample_noise(self, key: jax.Array, problem: PyTree, start: Params) -> PyTree:
        """Returns one standard deviation for all gradients."""
        del problem
        if not self.noisy:
            return ()
        low, high = (math.log(bound) for bound in NOISE_RANGE)
        drawn = jnp.exp(jax.random.uniform(key, (), jnp.float32, low, high))
        std = drawn if self.noise_std is None else jnp.float32(self.noise_std)
        return jax.tree.map(lambda _: std, start)

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether the fixed noise, if any, lies in the range that is drawn from."""
        return self.noise_std is None or NOISE_RANGE[0] <= self.noise_std <= NOISE_RANGE[1]

    def noise_label(self) -> str:
        """Returns "", " · noise" or e.g. " · noise 0.5"."""
        fixed = "" if self.noise_std is None else f" {self.noise_std:g}"
        return f" · noise{fixed}" if self.noisy else ""


def noise_prior() -> dict[str, Distribution]:
    """Returns the prior of a problem's noise: the paper has it "sometimes", here half of the time."""
    return {"noisy": Categorical(values=(False, True))}


@dataclasses.dataclass(frozen=True)
class SyntheticFamily:
    """Problems of one size."""

    config: SyntheticConfig

    def sample_dynamic(self, key: jax.Array) -> SyntheticDynamic:
        """Draws a problem, its start and its noise."""
        config = self.config
        problem_key, start_key, noise_key = jax.random.split(key, 3)
        problem = config.sample_problem(problem_key)
        start = config.sample_start(start_key, problem)
        start_loss = config.objective(start, problem, config.all_examples(problem))
        return SyntheticDynamic(problem, start, start_loss, config.sample_noise(noise_key, problem, start))

    def dynamic_axes(self) -> int:
        """Returns 0: everything is one per task."""
        return 0

    def task(self, dynamic: SyntheticDynamic) -> SyntheticTask:
        """Returns the problem."""
        return SyntheticTask(self.config, dynamic)


@dataclasses.dataclass(frozen=True)
class SyntheticTask:
    """One problem."""

    config: SyntheticConfig
    dynamic: SyntheticDynamic

    def init(self, key: jax.Array) -> TaskState:
        """Returns the problem's starting point, whatever the key."""
        del key
        return TaskState(self.dynamic.start)

    def batch(self, key: jax.Array, split: Split = "train") -> Batch:
        """Returns examples drawn with replacement, where the problem has any."""
        del split
        return self.config.draw(self.dynamic.problem, key)

    def loss(self, state: TaskState, key: jax.Array, batch: Batch) -> tuple[Scalar, TaskState]:
        """Returns the loss without noise."""
        del key
        return self.config.objective(state.params, self.dynamic.problem, batch), state

    def value_and_grad(self, state: TaskState, key: jax.Array, batch: Batch) -> LossAndGradient:
        """Returns the loss, without noise, and its gradient plus the noise that `key` draws."""

        def loss_fn(params: Params) -> tuple[Scalar, TaskState]:
            return self.loss(state._replace(params=params), key, batch)

        value, grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        return value, add_noise(grads, self.dynamic.noise, key) if jax.tree.leaves(
            self.dynamic.noise
        ) else grads

    def normalize(self, loss: Scalar) -> Scalar:
        """Returns the loss above the lower bound, relative to the start's, capped."""
        bound = self.config.lower_bound()
        return cap((loss - bound) / jnp.maximum(self.dynamic.start_loss - bound, SMALLEST_SCALE))


def add_noise(grads: Params, stds: PyTree, key: jax.Array) -> Params:
    """Returns the gradients plus independent normal noise of the given standard deviations (a tree alike)."""
    leaves, structure = jax.tree.flatten(grads)
    normal = jax.random.normal(key, (sum(leaf.size for leaf in leaves),), jnp.float32)
    noise = jax.tree.unflatten(structure, split_vector(normal, [leaf.shape for leaf in leaves]))
    return jax.tree.map(lambda g, z, std: g + (std * z).astype(g.dtype), grads, noise, stds)


def full_precision(tree: PyTree) -> PyTree:
    """Returns the tree in float32, which the formulas are evaluated in."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


jax.tree_util.register_dataclass(SyntheticFamily, data_fields=[], meta_fields=["config"])
