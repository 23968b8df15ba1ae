"""The batch of meta-gradients that the next outer step is made from, added up as they come in.

Only their sum is kept, in float64, so the learner's memory does not depend on how many workers there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import jax
import numpy as np

from curriculum.asynchronous.errands import Part
from curriculum.telemetry import UnitTally
from lopt.types import Theta


class GradientBatch:
    """Takes in answers until it is taken out.

    Args:
      like: A tree like theta.
    """

    def __init__(self, like: Theta) -> None:
        self._zero = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf), np.float64), like)
        self.dropped = self.not_finite = 0
        self._clear()

    def _clear(self) -> None:
        self._sum = jax.tree.map(np.copy, self._zero)
        self.tally = UnitTally()
        self.staleness: Counter[int] = Counter()
        self.losses: list[tuple[int, float]] = []
        self.num_inner_steps = 0.0
        self._metrics: dict[str, list[float]] = {}

    @property
    def count(self) -> int:
        """Meta-gradients in the batch."""
        return len(self.losses)

    def add(
        self, parts: Sequence[Part], total: Callable[[], Theta], staleness: int, max_staleness: int
    ) -> None:
        """Adds an answer unless it is too old.

        Args:
          parts: What its units came to; those that are not finite are counted, those that failed are not.
          total: Gives the sum of the gradients of the parts that are in it; called only if it is needed.
          staleness: Outer steps since its theta.
          max_staleness: How many it may have.
        """
        are_in_sum = [self._count(part, staleness, max_staleness) for part in parts]
        if not any(are_in_sum):
            return
        for own, leaf in zip(jax.tree.leaves(self._sum), jax.tree.leaves(total()), strict=True):
            own += leaf

    def _count(self, part: Part, staleness: int, max_staleness: int) -> bool:
        """Returns whether the part is in the batch."""
        result = part.result
        if result is None:
            return False
        self.num_inner_steps += result.num_inner_steps  # they were computed, whether or not they count
        self.tally.received(staleness, result.cost)
        if staleness > max_staleness:
            self.dropped += 1
            self.tally.num_stale += 1
            return False
        if not part.is_in_sum:
            self.not_finite += 1
            self.tally.num_not_finite += 1
            return False
        self.tally.used(part.task, result.meta_loss, result.squared_norm)
        self.staleness[staleness] += 1
        self.losses.append((part.task, result.meta_loss))
        for name, value in result.metrics.items():
            self._metrics.setdefault(name, []).append(value)
        return True

    def take(self) -> tuple[Theta, dict[str, float], float]:
        """Returns the mean gradient, what the batch's numbers come to, and its inner steps; starts the next batch.

        Raises:
          ValueError: If nothing is in it.
        """
        if not self.count:
            raise ValueError("the batch has no meta-gradient in it")
        mean = jax.tree.map(lambda total: (total / self.count).astype(np.float32), self._sum)
        ages = np.repeat(list(self.staleness), list(self.staleness.values()))
        metrics = {name: float(np.mean(values)) for name, values in self._metrics.items()}
        metrics |= {
            "staleness_mean": float(ages.mean()),
            "staleness_max": float(ages.max()),
            "dropped_as_stale": float(self.dropped),
            "dropped_as_not_finite": float(self.not_finite),
        }
        num_inner_steps = self.num_inner_steps
        self._clear()
        return mean, metrics, num_inner_steps
