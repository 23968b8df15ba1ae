"""Which curves of a job are missing, as units of work.

A program trains a grid: every one of some settings with every one of some seeds. What is missing need not be one,
so settings that lack the same seeds go together. More seeds, or more trials, are one grid; so is everything, where
nothing was computed before. A large grid is more than one unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class MissingCurves(NamedTuple):
    """A grid of curves to compute.

    Attributes:
      settings: Places of the settings in their job.
      seeds: With each of which every setting is trained.
    """

    settings: tuple[int, ...]
    seeds: tuple[int, ...]

    def split(self, max_settings: int) -> list[MissingCurves]:
        """Returns the same curves in as few grids of at most `max_settings` as there can be, evenly."""
        num_parts = math.ceil(len(self.settings) / max_settings)
        return [
            self._replace(settings=tuple(map(int, part))) for part in np.array_split(self.settings, num_parts)
        ]


def missing_curves(
    num_settings: int, seeds: Sequence[int], is_missing: Callable[[int, int], bool]
) -> list[MissingCurves]:
    """Returns the grids that the missing curves of a job are, without any other.

    Args:
      num_settings: Of the job.
      seeds: Of the job.
      is_missing: (setting, seed) → whether to compute it.
    """
    by_seeds: dict[tuple[int, ...], list[int]] = {}
    for setting in range(num_settings):
        missing = tuple(seed for seed in seeds if is_missing(setting, seed))
        if missing:
            by_seeds.setdefault(missing, []).append(setting)
    return [MissingCurves(tuple(settings), missing) for missing, settings in by_seeds.items()]
