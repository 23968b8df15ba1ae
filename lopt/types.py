"""The four interfaces everything else is built on.

`lopt` states what a task is and never learns where tasks come from; `task_generator` supplies them. Shapes are
fixed by static configurations; values (dynamic configurations, theta, horizons, seeds) may be traced.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import jax
import optax

PyTree = Any
Scalar = jax.Array
PRNGKey = jax.Array
Theta = PyTree
"""Meta-parameters: the weights of a learned optimizer."""
Params = PyTree
"""Inner parameters: what a learned optimizer trains."""
Batch = PyTree
Dynamic = Any
"""A NamedTuple of arrays: what may vary inside one compiled program."""
Split = Literal["train", "inner_valid", "outer_valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "inner_valid", "outer_valid", "test")


class TaskState(NamedTuple):
    """What inner training changes: the parameters, and any model state (batch statistics, hidden states)."""

    params: Params
    model_state: PyTree = ()


class Task(Protocol):
    """One problem. Shapes are fixed; values may be traced."""

    def init(self, key: PRNGKey) -> TaskState:
        """Returns freshly initialised parameters and model state."""
        ...

    def batch(self, key: PRNGKey, split: Split = "train") -> Batch:
        """Returns a batch drawn in-graph. Pure: the same key gives the same batch."""
        ...

    def loss(self, state: TaskState, key: PRNGKey, batch: Batch) -> tuple[Scalar, TaskState]:
        """Returns the scalar loss and the state with its model state brought forward."""
        ...

    def normalize(self, loss: Scalar) -> Scalar:
        """Returns the loss on a scale that is comparable between tasks (about 1 at chance level)."""
        ...


class TaskFamily(Protocol):
    """A static configuration: compiled once, then run for many dynamic ones."""

    def sample_dynamic(self, key: PRNGKey) -> Dynamic:
        """Returns one dynamic configuration."""
        ...

    def dynamic_axes(self) -> Dynamic:
        """Returns, shaped like a dynamic configuration, the `vmap` axis of each field.

        0: one value per task. None: one value per work unit, because the field selects code (an activation,
        an initialiser), and a vmapped selection would run every branch.
        """
        ...

    def task(self, dynamic: Dynamic) -> Task:
        """Returns the problem that `dynamic` selects."""
        ...


class LearnedOptimizer(Protocol):
    """A network that turns gradients into updates."""

    reads_loss: bool
    """Whether `update` needs the keyword `value`, the loss. A class attribute: where it is True, a missing loss is
    an error that names the fix; where it is False, `value` may be left out and never changes the update."""

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns initial meta-parameters, all float32."""
        ...

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation that `theta` defines for a run of `num_steps` (may be traced)."""
        ...


class Combination(NamedTuple):
    """A gradient as what it is made of: Σₙ (w⁺ₙ ε⁺ₙ + w⁻ₙ ε⁻ₙ), the directions ε being those that `key` draws."""

    key: PRNGKey
    weights: jax.Array
    """[lanes, 2]."""


class MetaGradient(NamedTuple):
    """What an estimator returns: the gradient of the meta-loss and what it cost."""

    mean: Theta
    meta_loss: Scalar
    num_inner_steps: Scalar
    metrics: dict[str, Scalar]
    combination: Combination | None = None
    """What `mean` is made of, where that is perturbations drawn afresh."""


class MetaGradientEstimator(Protocol):
    """Ask and tell folded into one pure step."""

    def init(self, theta: Theta, key: PRNGKey) -> PyTree:
        """Returns the estimator's state (empty for stateless ones)."""
        ...

    def estimate(
        self, theta: Theta, state: PyTree, key: PRNGKey, outer_step: int | Scalar = ...
    ) -> tuple[MetaGradient, PyTree]:
        """Returns a meta-gradient estimate and the next state.

        Lengths that grow are those of `outer_step`, which may be traced; by default schedules have ended.
        """
        ...
