"""What tuning a baseline costs: all trials in one compiled program, against one after the other, and one each.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/baseline_search.py [--steps 500] [--json PATH]

Trains tasks of `embedded24` with Adam's fifteen learning rates from three seeds:

- packed, as `keirin baselines` does;
- one by one with a program that is compiled only once, too: "ratio" without and "with compilation" of both;
- one by one with "a program each", as where every trial is a script of its own: five of the 45 are compiled and
  trained, and count for nine each. Compilation is in both times; what starting a process costs is not.

Ratios are over the packed search, in the same process.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax

from curriculum.evaluation import curves
from curriculum.evaluation.curves import CurveUnit, baseline_json, run_curve_unit
from lopt.baselines import LEARNING_RATE_GRID
from task_generator.evaluation_set import EvaluationTask, get_evaluation_set

SEEDS = (0, 1, 2)
ANEW = LEARNING_RATE_GRID[1::3]
"""Rates whose trial gets a program of its own, with the first seed."""


def unit(task: EvaluationTask, num_steps: int, seeds: tuple[int, ...], settings_at_once: int) -> CurveUnit:
    """Returns the trainings of some seeds, evaluated at the start and at the end."""
    return CurveUnit(
        task=task.config.canonical_json(),
        optimizer=baseline_json("adam"),
        seeds=seeds,
        horizon=num_steps,
        num_points=2,
        eval_every=num_steps,
        settings_at_once=settings_at_once,
    )


def measure(task: EvaluationTask, num_steps: int) -> dict[str, Any]:
    """Returns one task's seconds, packed and one by one, without and with what compiling takes."""
    start = time.perf_counter()
    packed = run_curve_unit(unit(task, num_steps, SEEDS, len(LEARNING_RATE_GRID)), LEARNING_RATE_GRID)
    packed_total = time.perf_counter() - start
    num_runs = len(SEEDS) * len(LEARNING_RATE_GRID)
    packed_run = packed.seconds_per_step * num_steps * num_runs

    start = time.perf_counter()
    single_run = 0.0
    for seed in SEEDS:
        for rate in LEARNING_RATE_GRID:
            single_run += (
                run_curve_unit(unit(task, num_steps, (seed,), 1), (rate,)).seconds_per_step * num_steps
            )
    single_total = time.perf_counter() - start
    anew_total = program_each(task, num_steps) * num_runs / len(ANEW)
    return {
        "task": task.name,
        "packed_seconds": packed_run,
        "single_seconds": single_run,
        "ratio": single_run / packed_run,
        "ratio_with_compilation": single_total / packed_total,
        "ratio_program_each": anew_total / packed_total,
    }


def program_each(task: EvaluationTask, num_steps: int) -> float:
    """Returns the seconds of the trials in `ANEW`, each traced, compiled and trained as if it were the only one."""
    total = 0.0
    for rate in ANEW:
        curves._compiled.cache_clear()
        jax.clear_caches()
        start = time.perf_counter()
        run_curve_unit(unit(task, num_steps, SEEDS[:1], 1), (rate,))
        total += time.perf_counter() - start
    return total


def main() -> None:
    """Prints a table; writes it with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--tasks", nargs="*", help="names of tasks [the first eight of the set]")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tasks = get_evaluation_set("embedded24")
    chosen = [t for t in tasks if t.name in arguments.tasks] if arguments.tasks else tasks[:8]
    print(
        f"{'task':32} {'packed':>9} {'one by one':>11} {'ratio':>7} {'with compilation':>17} "
        f"{'a program each':>15}"
    )
    rows = []
    for task in chosen:
        row = measure(task, arguments.steps)
        rows.append(row)
        print(
            f"{row['task']:32} {row['packed_seconds']:7.2f} s {row['single_seconds']:9.2f} s "
            f"{row['ratio']:6.1f}x {row['ratio_with_compilation']:16.1f}x "
            f"{row['ratio_program_each']:14.1f}x",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), "utf-8")


if __name__ == "__main__":
    main()
