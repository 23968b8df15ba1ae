"""A number as a function of the outer step: straight lines between given points, constant before and after.

Constant, linear and piece-wise linear are one, two and more points. The step may be traced, so that a schedule runs
inside a compiled program and a change of its value compiles nothing.

[1] Metz et al. 2022, VeLO, App. D.3 and Fig. 20 (lengths of unrolls).
[2] Metz et al. 2018, 4.3, and Metz et al. 2020, App. B (truncations that grow linearly).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Self

import jax.numpy as jnp
import numpy as np
from pydantic import model_validator

from lopt.config import FrozenConfig
from lopt.types import Scalar

END_OF_SCHEDULE = 2**31 - 1
"""An outer step by which every schedule has ended: that of validations, and where none is given."""


class PiecewiseLinear(FrozenConfig):
    """`points`: (outer step, value), steps ascending, values positive."""

    points: tuple[tuple[int, float], ...]

    @model_validator(mode="after")
    def _points_ascend(self) -> Self:
        steps, values = [step for step, _ in self.points], [value for _, value in self.points]
        if not steps or steps[0] < 0 or any(later <= step for step, later in pairwise(steps)):
            raise ValueError(
                f"a schedule needs at least one point, with outer steps that ascend from 0 on, got steps {steps}"
            )
        if min(values) <= 0:
            raise ValueError(f"a schedule's values must be positive, got {values}")
        return self

    @classmethod
    def linear(cls, start: float, end: float, *, num_steps: int) -> Self:
        """Returns the line from `start` at step 0 to `end` at step `num_steps`, where it stays."""
        return cls(points=((0, start), (num_steps, end)))

    @property
    def ends_at(self) -> int:
        """The outer step from which the value no longer changes."""
        return self.points[-1][0]

    @property
    def last(self) -> float:
        """The value there."""
        return self.points[-1][1]

    def at(self, outer_step: int | Scalar) -> Scalar:
        """Returns the value, scalar float32."""
        steps, values = (jnp.asarray(column, jnp.float32) for column in zip(*self.points, strict=True))
        return jnp.interp(jnp.asarray(outer_step).astype(jnp.float32), steps, values)

    def values(self, num_steps: int) -> np.ndarray:
        """Returns the values of the first `num_steps` outer steps: [num_steps] float64."""
        steps, values = np.asarray(self.points, np.float64).T
        return np.interp(np.arange(num_steps), steps, values)

    def stretched(self, *, old: int, new: int) -> Self:
        """Returns the schedule of a phase of `new` outer steps that was one of `old`.

        Steps are rounded down, so that what ended within the phase still does. Of points that fall together the
        last stays.
        """
        moved = {step * new // old: value for step, value in self.points}
        return type(self)(points=tuple(moved.items()))
