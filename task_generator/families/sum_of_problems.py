"""Several problems at once: the loss is the sum of the parts' losses, the parameters are a tuple of theirs.

"To simulate complex tasks with diverse parts" [1]. Any registered families can be parts, except sums. As in the
paper, the losses are added as they are, so that the steepest part leads; `normalized` divides each by its value at
one start instead. The parts keep their own training gradients (noise, for one), which are added likewise. The
normalised loss is the sum relative to the sum at one start.

    SumOfProblemsConfig(parts=(QuadraticConfig(dimension=11), Functions2DConfig(function="rosenbrock")))

[1] Wichrowska et al. 2017 (arXiv:1703.04813), Section 4.1.5. The text has no sizes; the prior follows the release's
sums: 2 to 11 parts, 2-D functions and quadratics of 3 to 25 variables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError

from lopt.registry import unknown_name_message
from lopt.training_gradient import LossAndGradient, value_and_grad
from lopt.types import Batch, Dynamic, Params, Scalar, Split, Task, TaskFamily, TaskState
from task_generator.distributions import Distribution, LogUniformInt, UniformInt
from task_generator.families.base import FamilyConfig, cap
from task_generator.families.functions_2d import FUNCTIONS, Functions2DConfig
from task_generator.families.quadratics import QuadraticConfig
from task_generator.families.synthetic import SMALLEST_SCALE

NUM_PARTS = UniformInt(low=2, high=11)
PART_DIMENSION = LogUniformInt(low=3, high=25)
MAX_PARTS = 32

T = TypeVar("T")


def _part(value: Any) -> Any:
    """Returns the configuration that a part's field describes; refuses what cannot be one."""
    from task_generator.families import FAMILIES  # holds this family, too: it exists only after this module

    if not isinstance(value, FamilyConfig | Mapping):
        raise ValueError(f"a part is a family's configuration, got {value!r}")  # noqa: TRY004 - pydantic's protocol
    known = [name for name in FAMILIES if name != "sum_of_problems"]
    name = value.family if isinstance(value, FamilyConfig) else value.get("family", "")
    if name == "sum_of_problems":
        raise ValueError("a sum can't be part of a sum. Write its parts into the outer one.")
    if name not in known:
        raise ValueError(unknown_name_message("task family", str(name), known))
    if isinstance(value, FamilyConfig):
        return value
    try:
        return FAMILIES[name].model_validate(value)
    except ValidationError as error:
        problems = [f"`{'.'.join(map(str, p['loc']))}`: {p['msg']}" for p in error.errors(include_url=False)]
        raise ValueError(f"not a configuration of {name!r}: {'; '.join(problems)}") from None


Part = Annotated[SerializeAsAny[FamilyConfig], BeforeValidator(_part)]


class PartsPrior:
    """Two to eleven 2-D functions and quadratics, either kind being as likely at each place."""

    def sample(self, rng: np.random.Generator) -> tuple[FamilyConfig, ...]:
        """Returns one draw."""
        parts: list[FamilyConfig] = []
        for _ in range(NUM_PARTS.sample(rng)):
            if rng.integers(2):
                parts.append(Functions2DConfig(function=list(FUNCTIONS)[int(rng.integers(len(FUNCTIONS)))]))
            else:
                parts.append(QuadraticConfig(dimension=PART_DIMENSION.sample(rng)))
        return tuple(parts)

    def contains(self, value: Any) -> bool:
        """Returns whether `sample` could return `value`."""
        return NUM_PARTS.contains(len(value)) and all(self._contains_part(part) for part in value)

    def _contains_part(self, part: FamilyConfig) -> bool:
        if isinstance(part, QuadraticConfig):
            return not part.noisy and PART_DIMENSION.contains(part.dimension)
        return isinstance(part, Functions2DConfig) and not part.noisy and part.function is not None


class SumOfProblemsConfig(FamilyConfig):
    """Problems that are solved together."""

    has_examples: ClassVar[bool] = False

    family: Literal["sum_of_problems"] = "sum_of_problems"
    parts: tuple[Part, ...] = Field(
        min_length=2, max_length=MAX_PARTS, description="Configurations of other families."
    )
    normalized: bool = Field(
        False, description="Whether each part's loss is divided by its value at one start."
    )

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the prior of the parts; their losses are added as they are."""
        return {"parts": PartsPrior()}

    @classmethod
    def example(cls) -> Self:
        """Returns a bowl and a valley."""
        return cls(parts=(QuadraticConfig(dimension=5), Functions2DConfig(function="rosenbrock")))

    def build(self) -> SumFamily:
        """Returns the family."""
        return SumFamily(self, tuple(part.build() for part in self.parts))

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether the parts' dynamic priors could draw what the parts fix."""
        return all(part.overrides_could_be_sampled() for part in self.parts)

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parts' costs, added up."""
        costs = [part.approximate_cost() for part in self.parts]
        return {name: sum(cost[name] for cost in costs) for name in costs[0]}

    def label(self) -> str:
        """Returns e.g. "sum of (quadratic 5) + (2-D rosenbrock)"."""
        kind = "normalised sum" if self.normalized else "sum"
        return f"{kind} of " + " + ".join(f"({part.label()})" for part in self.parts)


class SumDynamic(NamedTuple):
    """The parts' dynamic configurations, and what their losses are at one start."""

    parts: tuple[Dynamic, ...]
    start_losses: jax.Array  # float32 [parts], absolute values


@dataclasses.dataclass(frozen=True)
class SumFamily:
    """Families whose problems are added."""

    config: SumOfProblemsConfig
    parts: tuple[TaskFamily, ...]

    def sample_dynamic(self, key: jax.Array) -> SumDynamic:
        """Draws a problem of each part and evaluates it at one start, on one batch."""
        keys = [jax.random.fold_in(key, i) for i in range(len(self.parts))]
        dynamics = tuple(part.sample_dynamic(k) for part, k in zip(self.parts, keys, strict=True))
        starts = [_start_loss(part.task(d), k) for part, d, k in zip(self.parts, dynamics, keys, strict=True)]
        return SumDynamic(dynamics, jnp.maximum(jnp.abs(jnp.stack(starts)), SMALLEST_SCALE))

    def dynamic_axes(self) -> SumDynamic:
        """Returns the parts' axes, and 0 for the losses at the start."""
        return SumDynamic(tuple(part.dynamic_axes() for part in self.parts), 0)  # type: ignore[arg-type]

    def task(self, dynamic: SumDynamic) -> SumTask:
        """Returns the sum of the problems that `dynamic` selects."""
        tasks = tuple(part.task(d) for part, d in zip(self.parts, dynamic.parts, strict=True))
        return SumTask(tasks, dynamic.start_losses, self.config.normalized)


def _start_loss(task: Task, key: jax.Array) -> Scalar:
    return task.loss(task.init(key), key, task.batch(key))[0].astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class SumTask:
    """Problems with a common loss."""

    tasks: tuple[Task, ...]
    start_losses: jax.Array
    normalized: bool

    def init(self, key: jax.Array) -> TaskState:
        """Returns the tuples of the parts' parameters and of their model states."""
        return _join([task.init(k) for task, k in zip(self.tasks, self._keys(key), strict=True)])

    def batch(self, key: jax.Array, split: Split = "train") -> Batch:
        """Returns the parts' batches."""
        return tuple(task.batch(k, split) for task, k in zip(self.tasks, self._keys(key), strict=True))

    def loss(self, state: TaskState, key: jax.Array, batch: Batch) -> tuple[Scalar, TaskState]:
        """Returns the sum of the parts' losses."""
        results = self._for_each(lambda task, *args: task.loss(*args), state, key, batch)
        losses, states = zip(*results, strict=True)
        return jnp.sum(self._weights() * jnp.stack(losses)), _join(states)

    def value_and_grad(self, state: TaskState, key: jax.Array, batch: Batch) -> LossAndGradient:
        """Returns the sum of what the parts show in training."""
        results = self._for_each(value_and_grad, state, key, batch)
        values, gradients = zip(*results, strict=True)
        losses, states = zip(*values, strict=True)
        weights = self._weights()
        scaled = tuple(
            jax.tree.map(lambda g, weight=weight: g * weight.astype(g.dtype), part)
            for part, weight in zip(gradients, weights, strict=True)
        )
        return (jnp.sum(weights * jnp.stack(losses)), _join(states)), scaled

    def normalize(self, loss: Scalar) -> Scalar:
        """Returns the loss relative to the start's, capped."""
        return cap(loss / jnp.sum(self._weights() * self.start_losses))

    def _for_each(
        self, function: Callable[..., T], state: TaskState, key: jax.Array, batch: Batch
    ) -> list[T]:
        states = [TaskState(*pair) for pair in zip(state.params, state.model_state, strict=True)]
        return [
            function(task, part_state, part_key, part_batch)
            for task, part_state, part_key, part_batch in zip(
                self.tasks, states, self._keys(key), batch, strict=True
            )
        ]

    def _weights(self) -> jax.Array:
        return 1.0 / self.start_losses if self.normalized else jnp.ones_like(self.start_losses)

    def _keys(self, key: jax.Array) -> list[jax.Array]:
        return [jax.random.fold_in(key, i) for i in range(len(self.tasks))]


def _join(states: Any) -> TaskState:
    params: Params = tuple(state.params for state in states)
    return TaskState(params, tuple(state.model_state for state in states))


jax.tree_util.register_dataclass(SumFamily, data_fields=["parts"], meta_fields=["config"])
