"""Meta-gradients on real Dask workers: rate, what a second worker adds, overhead, and the time to the first one.

    python benchmarks/workers.py [--only velo-32] [--units 20] [--json PATH]

The setting of `meta_gradient.py` (eight tasks x one pair of a 32-unit network on 8x8 digits, batch 128, full ES).
Units take about a second: the horizon is chosen so. One worker does them, then two, each worker its own task (equal
but for the batch size), as a phase with two static configurations would have it.

- inner steps/s: both twins counted, over the wall time of the whole set of units.
- x one: the rate of two workers over that of one.
- overhead: the share of the workers' wall time in which no unit ran: Dask, sending theta, receiving gradients.
- first, cold and warm: from starting the workers to the first meta-gradient, with an empty compilation cache and
  with the one that the cold start filled.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from curriculum.units_of_work import work_units
from curriculum.worker import WorkResult, WorkUnit, build_optimizer, run_work_unit
from flows.settings import RuntimeSettings
from flows.workers.pool import DaskWorkerPool
from lopt.architectures import ARCHITECTURES
from lopt.estimators.full_es import FullEsConfig
from task_generator.families import MlpConfig
from task_generator.task_config import TaskConfig

LOW_RANK = {"perturbation": "low_rank", "rank": 1}
CASES: dict[str, tuple[str, dict[str, int], dict[str, Any]]] = {
    "pacer": ("pacer", {}, {}),
    "adafactor_mlp": ("adafactor_mlp", {}, {}),
    "velo-32": ("velo", {"lstm_hidden_size": 32, "mlp_bank_size": 8}, {}),
    "velo-512": ("velo", {}, {}),
    "velo-512 low rank": ("velo", {}, {"perturbation": LOW_RANK}),
}
PROBE_HORIZON = 50
UNIT_SECONDS = 1.0


class Timed(NamedTuple):
    """A unit's result with how long the worker was at it."""

    result: WorkResult
    seconds: float


def timed_unit(unit: WorkUnit, theta: Any) -> Timed:
    """Runs a unit on a worker, and says how long it took there."""
    started = time.perf_counter()
    result = run_work_unit(unit, theta)
    return Timed(result, time.perf_counter() - started)


class Case:
    """One optimizer on two tasks."""

    def __init__(self, name: str) -> None:
        architecture, sizes, self.fields = CASES[name]
        self.optimizer = ARCHITECTURES[architecture].model_validate(sizes)
        learned = build_optimizer(self.optimizer.canonical_json())
        self.theta = jax.tree.map(np.asarray, learned.init_theta(jax.random.key(0)))
        self.tasks = [
            TaskConfig(
                family=MlpConfig(
                    hidden_size=32,
                    num_layers=1,
                    image_size=8,
                    batch_size=batch_size,
                    dataset="digits",
                    activation="relu",
                    initializer="normal",
                )
            )
            for batch_size in (128, 127)
        ]

    def units(self, count: int, horizon: int) -> list[WorkUnit]:
        """Returns `count` units, the two tasks in turns."""
        config = FullEsConfig(
            sigma=0.03,
            min_horizon=horizon,
            max_horizon=horizon,
            num_tasks=8,
            num_pairs=1,
            **self.fields,
        )
        tasks = [self.tasks[number % 2] for number in range(count)]
        return work_units(config, tasks, self.optimizer, seed=(0,))


def run(pool: DaskWorkerPool, case: Case, units: list[WorkUnit]) -> tuple[float, list[Timed]]:
    """Returns the wall seconds of all units, and each one's own."""
    started = time.perf_counter()
    results = pool.run_all(
        timed_unit, [(unit, case.theta) for unit in units], affinity=[unit.task for unit in units]
    )
    return time.perf_counter() - started, results


def horizon_of_a_second(pool: DaskWorkerPool, case: Case) -> int:
    """Returns the inner steps that take about `UNIT_SECONDS`, by the difference of two lengths."""
    seconds = []
    for horizon in (PROBE_HORIZON, 10 * PROBE_HORIZON):
        run(pool, case, case.units(4, horizon))  # compiles both tasks
        _, probe = run(pool, case, case.units(4, horizon))
        seconds.append(min(unit.seconds for unit in probe))
    each = (seconds[1] - seconds[0]) / (9 * PROBE_HORIZON)
    return max(int(UNIT_SECONDS / each), PROBE_HORIZON)


def first_gradient(home: Path, case: Case) -> float:
    """Returns the seconds from no workers to one meta-gradient."""
    started = time.perf_counter()
    with DaskWorkerPool.open(RuntimeSettings(home=home, num_workers=2)) as pool:
        run(pool, case, case.units(1, PROBE_HORIZON))
        return time.perf_counter() - started


def measure(name: str, num_units: int) -> dict[str, Any]:
    """Returns the figures of one case."""
    case, home = Case(name), Path(tempfile.mkdtemp(prefix="keirin-workers-"))
    row: dict[str, Any] = {"case": name}
    try:
        row["first_cold"], row["first_warm"] = first_gradient(home, case), first_gradient(home, case)
        for num_workers in (1, 2):
            with DaskWorkerPool.open(RuntimeSettings(home=home, num_workers=num_workers)) as pool:
                horizon = horizon_of_a_second(pool, case)
                run(pool, case, case.units(4, horizon))  # another configuration is another program
                wall, results = run(pool, case, case.units(num_units, horizon))
            busy = sum(unit.seconds for unit in results)
            row[f"rate_{num_workers}"] = 16 * horizon * num_units / wall
            row[f"overhead_{num_workers}"] = 1.0 - busy / (num_workers * wall)
            row[f"unit_seconds_{num_workers}"] = busy / num_units
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return row


def main() -> None:
    """Prints a table, and writes it as JSON if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", type=int, default=20, help="Units of each set; even.")
    parser.add_argument("--only", action="append", choices=list(CASES), help="May be repeated.")
    parser.add_argument("--json", type=Path, help="File to write the figures to.")
    options = parser.parse_args()
    print(
        f"{'':18s} {'1 worker':>9s} {'2 workers':>10s} {'x one':>6s} {'unit, s':>8s} "
        f"{'overhead 1':>11s} {'overhead 2':>11s} {'cold, s':>8s} {'warm, s':>8s}"
    )
    rows = []
    for name in options.only or CASES:
        row = measure(name, options.units)
        rows.append(row)
        print(
            f"{name:18s} {row['rate_1']:9,.0f} {row['rate_2']:10,.0f} {row['rate_2'] / row['rate_1']:6.2f} "
            f"{row['unit_seconds_2']:8.2f} {row['overhead_1']:11.1%} {row['overhead_2']:11.1%} "
            f"{row['first_cold']:8.1f} {row['first_warm']:8.1f}",
            flush=True,
        )
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1), "utf-8")


if __name__ == "__main__":
    main()
