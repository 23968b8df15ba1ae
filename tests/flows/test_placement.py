"""Where units go: to their programs, to more workers when that pays, and never further than it pays."""

from __future__ import annotations

import numpy as np

from curriculum.worker import MAX_COMPILED_PROGRAMS
from flows.workers.placement import PATIENCE, Placement

TWO = ("tcp://a", "tcp://b")
FOUR_KEYS = ("w", "x", "y", "z")


def duration(costs: list[float], chosen: list[str | None]) -> float:
    loads: dict[str | None, float] = {}
    for cost, worker in zip(costs, chosen, strict=True):
        loads[worker] = loads.get(worker, 0.0) + cost
    return max(loads.values())


def num_homes(placement: Placement) -> int:
    return sum(map(len, placement._homes.values()))


def test_keys_are_kept_apart_and_the_costliest_come_first() -> None:
    placement = Placement()
    assert placement.place(FOUR_KEYS, [4.0, 3.0, 2.0, 1.0], TWO) == [TWO[0], TWO[1], TWO[1], TWO[0]]


def test_a_balanced_batch_stays_where_it_is() -> None:
    placement = Placement()
    first = placement.place(FOUR_KEYS, [1.0] * 4, TWO)
    for _ in range(100):
        assert placement.place(FOUR_KEYS, [1.0] * 4, TWO) == first
    assert num_homes(placement) == 4


def test_units_of_one_key_share_its_homes() -> None:
    placement = Placement()
    chosen = placement.place(["w", "w", "x", "x"], [1.0] * 4, TWO)
    assert chosen[0] == chosen[1] != chosen[2] == chosen[3]


def test_a_key_gets_a_second_home_when_enough_was_lost() -> None:
    """Costs turn round after the first batch: one worker would do 11 of 12, where 10 can be had."""
    placement, costs = Placement(), [10.0, 1.0, 1.0, 0.5]
    placement.place(FOUR_KEYS, [1.0, 4.0, 3.0, 2.0], TWO)  # w and x; y and z
    before = placement.place(FOUR_KEYS, costs, TWO)
    lost = duration(costs, before) / 10.0 - 1.0
    assert lost > 0
    for _ in range(int(PATIENCE / lost) + 1):
        after = placement.place(FOUR_KEYS, costs, TWO)
    assert duration(costs, after) == 10.0
    assert num_homes(placement) == 5


def test_what_cannot_be_balanced_gets_no_other_home() -> None:
    """One unit is as long as all others; and keys fewer than workers are the scheduler's."""
    placement = Placement()
    for _ in range(200):
        placement.place(["w", "x"], [10.0, 1.0], TWO)
    assert num_homes(placement) == 2
    assert placement.place(["w", "w"], [1.0, 1.0], TWO) == [None, None]
    assert placement.place(["w"], [1.0], ()) == [None]


def test_no_worker_gets_more_programs_than_it_keeps() -> None:
    placement, rng = Placement(), np.random.default_rng(0)
    keys = [str(number) for number in range(2 * MAX_COMPILED_PROGRAMS)]
    counts = []
    for _ in range(500):
        placement.place(keys, rng.exponential(size=len(keys)).tolist(), TWO)
        counts.append([sum(worker in homes for homes in placement._homes.values()) for worker in TWO])
    assert sum(counts[0]) == len(keys)
    assert np.all(counts[-1] <= np.maximum(counts[0], MAX_COMPILED_PROGRAMS))


def test_random_horizons_cost_little_idle_time_in_the_end() -> None:
    """Four tasks, horizons from 30 to 300: two fixed homes would leave a fifth of the time idle."""
    placement, rng = Placement(), np.random.default_rng(0)
    each = np.asarray([1.0, 1.0, 2.0, 3.0])
    batches = (each * np.exp(rng.uniform(np.log(30), np.log(300), size=(400, 4)))).tolist()
    fixed = [placement.place(FOUR_KEYS, batches[0], TWO)] * 200
    for batch in batches[:200]:
        placement.place(FOUR_KEYS, batch, TWO)
    late = [placement.place(FOUR_KEYS, batch, TWO) for batch in batches[200:]]
    possible = sum(max(sum(batch) / 2, max(batch)) for batch in batches[200:])
    assert sum(map(duration, batches[200:], fixed)) > 1.2 * possible
    assert sum(map(duration, batches[200:], late)) < 1.05 * possible


def test_a_worker_that_is_gone_is_nobodys_home() -> None:
    placement = Placement()
    placement.place(FOUR_KEYS, [1.0] * 4, TWO)
    assert set(placement.place(FOUR_KEYS, [1.0] * 4, ("tcp://b", "tcp://c"))) == {"tcp://b", "tcp://c"}
    placement.forget()
    assert num_homes(placement) == 0
