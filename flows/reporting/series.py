"""Curves of a run that may take a month, in a bounded number of points: when it is reached, pairs are averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from pydantic import BaseModel, Field


class Series(BaseModel):
    """Values over outer steps; a point stands for `width` values, and is at the last one's step.

    Values that are not finite are left out, so a curve has no point where it has no number.
    """

    capacity: int = Field(400, ge=2)
    width: int = 1
    steps: list[int] = []
    values: list[float] = []
    waiting: list[float] = []
    """Values of the point that is not complete."""

    def add(self, step: int, value: float) -> None:
        """Appends a value."""
        if not math.isfinite(value):
            return
        self.waiting.append(value)
        if len(self.waiting) < self.width:
            return
        self.steps.append(step)
        self.values.append(math.fsum(self.waiting) / len(self.waiting))
        self.waiting.clear()
        if len(self.steps) >= self.capacity:
            self._halve()

    def _halve(self) -> None:
        pairs = range(0, len(self.steps) - 1, 2)
        left = [self.values[-1]] * self.width if len(self.steps) % 2 else []  # a mean of as many values
        self.values = [(self.values[i] + self.values[i + 1]) / 2 for i in pairs]
        self.steps = [self.steps[i + 1] for i in pairs]
        self.width, self.waiting = 2 * self.width, left

    def forget_after(self, step: int) -> None:
        """Forgets what came after an outer step: the run goes on from there."""
        kept = sum(at <= step for at in self.steps)
        self.steps, self.values = self.steps[:kept], self.values[:kept]
        self.waiting.clear()

    @property
    def last(self) -> float | None:
        """The newest point."""
        return self.values[-1] if self.values else None

    def smooth(self) -> list[float]:
        """Returns the mean of the values around each, a tenth of the curve: cheap, and free of lag."""
        half, sums = len(self.values) // 20, [0.0, *accumulate(self.values)]
        spans = [(max(0, i - half), min(len(self.values), i + half + 1)) for i in range(len(self.values))]
        return [(sums[end] - sums[start]) / (end - start) for start, end in spans]

    @classmethod
    def of(cls, steps: Sequence[float], values: Sequence[float], *, capacity: int = 400) -> Series:
        """Returns the curve of these values."""
        series = cls(capacity=capacity)
        for step, value in zip(steps, values, strict=True):
            series.add(int(step), value)
        return series
