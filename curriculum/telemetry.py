"""What an outer step tells about itself beside its loss: pure numbers, added up while its units come in.

Every number is of one outer step, none a total since some start, so that a run that was resumed shows what an
uninterrupted one would (but for the first cosine: a checkpoint does not hold the meta-gradient before it).

- *Variance*: of the gradients g of n units about their mean m, Σ‖g − m‖² / (n − 1) = (Σ‖g‖² − n‖m‖²) / (n − 1): the
  trace of the covariance of one unit's gradient, unbiased. Only Σ‖g‖² is kept.
- *Noise share*: variance / n / ‖m‖². As E‖m‖² = ‖E m‖² + variance / n, it is about the part of ‖m‖² that is noise:
  near 0 the batch is larger than it need be, near 1 the step is a random one. Where each batch has each task once,
  the spread between tasks is no noise but counts here, so the share is an upper bound. Meta-training that diverged
  at a small batch was more stable at four times as many ([1], H.2).
- *Cosine* with the meta-gradient before: about 0 where noise rules, positive while steps agree, negative when they
  overshoot.
- *Staleness*: outer steps between the theta of a unit and the theta it is applied to, of all units that came in,
  the dropped ones included ([1], E.3).

[1] Metz et al. 2022, VeLO.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from curriculum.gradient_size import squared_norm
from curriculum.unit_cost import UnitCost
from lopt.types import Theta
from task_generator.task_config import TaskConfig

NAN = float("nan")
NO_COST = UnitCost()


class TaskLoss(NamedTuple):
    """One static configuration in one outer step."""

    number: int
    """Its place among the phase's tasks. Where tasks are re-sampled, the label is of the one that is there now."""
    label: str
    family: str
    meta_loss: float
    """Mean over its units."""


@dataclass(frozen=True)
class StepTelemetry:
    """The numbers of one outer step. NaN where there is none: a variance of one unit, the first cosine."""

    tasks: tuple[TaskLoss, ...] = ()
    staleness: Mapping[int, int] = field(default_factory=dict)
    """Units by age, in outer steps."""
    num_units: int = 0
    """That came in; those that were dropped included."""
    num_stale: int = 0
    num_not_finite: int = 0
    gradient_variance: float = NAN
    gradient_noise_share: float = NAN
    gradient_cosine: float = NAN
    cost: UnitCost = NO_COST
    """Of all units together, and of those of validations since the step before."""

    @property
    def drop_rate(self) -> float:
        """Share of the units that came in and were not used."""
        return _ratio(self.num_stale + self.num_not_finite, self.num_units)

    @property
    def compile_share(self) -> float:
        """Share of the workers' seconds that went into compilation."""
        return _ratio(self.cost.compile_seconds, sum(self.cost))

    @property
    def families(self) -> dict[str, float]:
        """Mean meta-loss of every family's tasks, each task counting once."""
        groups: dict[str, list[float]] = {}
        for task in self.tasks:
            groups.setdefault(task.family, []).append(task.meta_loss)
        return {family: float(np.mean(losses)) for family, losses in sorted(groups.items())}

    def metrics(self) -> dict[str, float]:
        """Returns what is recorded with every outer step, by name; losses of single tasks are not among it."""
        return {
            **{f"meta_loss_{family}": loss for family, loss in self.families.items()},
            "gradient_variance": self.gradient_variance,
            "gradient_noise_share": self.gradient_noise_share,
            "gradient_cosine": self.gradient_cosine,
            "drop_rate": self.drop_rate,
            "compile_share": self.compile_share,
            "worker_seconds": sum(self.cost),
        }


class GradientTrace:
    """Remembers one meta-gradient and its size, to compare the next one with."""

    def __init__(self) -> None:
        self._last: Theta | None = None
        self._size = 0.0

    def follow(self, gradient: Theta) -> tuple[float, float]:
        """Returns the next meta-gradient's norm and its cosine with the one before; NaN where there is none."""
        size, before, self._last = math.sqrt(squared_norm(gradient)), self._last, gradient
        product, self._size = self._size * size, size
        if before is None or not product:
            return size, NAN
        pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(before), strict=True)
        return size, sum(float(np.sum(np.multiply(a, b, dtype=np.float64))) for a, b in pairs) / product


class UnitTally:
    """Adds up the units of one outer step; keeps none of their gradients."""

    def __init__(self) -> None:
        self.staleness: Counter[int] = Counter()
        self.num_stale = self.num_not_finite = 0
        self._losses: dict[int, list[float]] = {}
        self._squares = 0.0
        self._cost = UnitCost()

    def received(self, staleness: int, cost: UnitCost) -> None:
        """Counts a unit that came in, whether or not it is used."""
        self.staleness[staleness] += 1
        self.spent(cost)

    def spent(self, cost: UnitCost) -> None:
        """Counts the time of a unit; called for those of validations, which compile as well."""
        self._cost = UnitCost(*(a + b for a, b in zip(self._cost, cost, strict=True)))

    def used(self, task: int, meta_loss: float, square: float) -> None:
        """Counts a unit that is in the step's mean; `square` is its gradient's squared norm."""
        self._losses.setdefault(task, []).append(meta_loss)
        self._squares += square

    def telemetry(self, gradient_norm: float, cosine: float, tasks: Sequence[TaskConfig]) -> StepTelemetry:
        """Returns the numbers of the step whose mean gradient has that norm."""
        num = sum(len(losses) for losses in self._losses.values())
        variance, noise_share = spread(self._squares, num, gradient_norm)
        return StepTelemetry(
            tasks=tuple(
                TaskLoss(number, tasks[number].label, tasks[number].family.family, float(np.mean(losses)))
                for number, losses in sorted(self._losses.items())
            ),
            staleness=dict(sorted(self.staleness.items())),
            num_units=sum(self.staleness.values()),
            num_stale=self.num_stale,
            num_not_finite=self.num_not_finite,
            gradient_variance=variance,
            gradient_noise_share=noise_share,
            gradient_cosine=cosine,
            cost=self._cost,
        )


def spread(squares: float, num: int, mean_norm: float) -> tuple[float, float]:
    """Returns the variance of a unit's gradient and the noise share of the mean of `num` (see the module).

    Args:
      squares: Sum of the units' squared norms.
      num: How many they are.
      mean_norm: Norm of their mean.
    """
    if num < 2:
        return NAN, NAN
    variance = max(squares - num * mean_norm**2, 0.0) / (num - 1)
    return variance, _ratio(variance, num * mean_norm**2)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else NAN
