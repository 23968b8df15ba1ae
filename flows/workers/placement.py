"""Which worker takes which unit of a batch: where its program is compiled, unless that makes the others wait.

Units of one key share a compiled program. A key begins with one home; units' costs differ from batch to batch, so
homes that are balanced in one leave a worker idle in the next. When batches have together lost what a compilation
may cost, the key that helps most gets a second home, and so on, as long as workers keep its program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from curriculum.worker import MAX_COMPILED_PROGRAMS

PATIENCE = 5.0
"""Batches' worth of idle time after which a key gets another home: a compilation takes as long as some batches."""
WORTHWHILE = 0.95
"""Of its duration, at most, a batch may take with the new home."""


class _Unit(NamedTuple):
    number: int
    key: str
    cost: float


class Placement:
    """Remembers which workers have which keys' programs."""

    def __init__(self) -> None:
        self._homes: dict[str, set[str]] = {}
        self._lost = 0.0  # in batches

    def forget(self) -> None:
        """All workers are new."""
        self._homes.clear()
        self._lost = 0.0

    def place(self, keys: Sequence[str], costs: Sequence[float], workers: Sequence[str]) -> list[str | None]:
        """Returns each unit's worker; None where the scheduler had better choose.

        Args:
          keys: Per unit, which program it needs.
          costs: Per unit, what it is expected to take, in any unit.
          workers: Addresses of those that there are now.
        """
        if len(set(keys)) < len(workers) or not workers:
            # Keeping keys apart would leave workers idle; with all of them restarting, the scheduler waits.
            return [None] * len(keys)
        present = set(workers)
        self._homes = {key: left for key, homes in self._homes.items() if (left := homes & present)}
        units = sorted(map(_Unit, range(len(keys)), keys, costs), key=lambda unit: -unit.cost)
        is_new = not set(keys) <= set(self._homes)
        self._find_homes(units, workers)
        loads, chosen = self._assign(units, workers)
        if not is_new:  # the first batch compiles, whatever it costs
            chosen = self._rebalanced(units, workers, loads, chosen)
        return [chosen[number] for number in range(len(keys))]

    def _find_homes(self, units: Sequence[_Unit], workers: Sequence[str]) -> None:
        """Gives keys without a home one: the costliest first, to the worker with the least cost so far."""
        sizes: dict[str, float] = {}
        for unit in units:
            sizes[unit.key] = sizes.get(unit.key, 0.0) + unit.cost
        loads, _ = self._assign([unit for unit in units if unit.key in self._homes], workers)
        for key in sorted((key for key in sizes if key not in self._homes), key=lambda key: -sizes[key]):
            worker = min(workers, key=loads.__getitem__)
            self._homes[key] = {worker}
            loads[worker] += sizes[key]

    def _assign(
        self, units: Sequence[_Unit], workers: Sequence[str], more: tuple[str, str] | None = None
    ) -> tuple[dict[str, float], dict[int, str]]:
        """Returns the workers' loads and the units' workers: each unit goes to its least loaded home.

        Args:
          units: The costliest first.
          workers: All of them.
          more: A key and a worker that is to be one of its homes besides.
        """
        loads, chosen = dict.fromkeys(workers, 0.0), {}
        for unit in units:
            homes = self._homes[unit.key] | ({more[1]} if more and more[0] == unit.key else set())
            worker = min(homes, key=lambda each: (loads[each], each))
            chosen[unit.number] = worker
            loads[worker] += unit.cost
        return loads, chosen

    def _rebalanced(
        self,
        units: Sequence[_Unit],
        workers: Sequence[str],
        loads: dict[str, float],
        chosen: dict[int, str],
    ) -> dict[int, str]:
        """Returns the units' workers; adds what this batch loses, and a home where enough has been lost."""
        longest = max(loads.values())
        possible = max(sum(loads.values()) / len(workers), units[0].cost)
        if possible <= 0.0:
            return chosen
        self._lost += longest / possible - 1.0
        if self._lost < PATIENCE:
            return chosen
        self._lost = 0.0
        idle, busiest = min(workers, key=loads.__getitem__), max(workers, key=loads.__getitem__)
        if sum(idle in homes for homes in self._homes.values()) >= MAX_COMPILED_PROGRAMS:
            return chosen
        moves = [(unit.key, idle) for unit in units if chosen[unit.number] == busiest]
        best = min(moves, key=lambda move: max(self._assign(units, workers, move)[0].values()))
        loads, moved = self._assign(units, workers, best)
        if max(loads.values()) > WORTHWHILE * longest:
            return chosen
        self._homes[best[0]].add(idle)
        return moved
