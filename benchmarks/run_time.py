"""The run-time model: configurations scored per second, error by number of timings, and accepted tasks over budget.

    python benchmarks/run_time.py [--measure N]

The model is that of the shipped timings. `--measure N` draws N tasks by rejection sampling from phase one on
embedded data (budgets as the phase has them), times each in a process of its own, and says how many exceed their
budget and by what. Measure on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("NPROC", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from flows.workers.units import time_unit
from runtime_model.fitting import fit
from runtime_model.prediction import RuntimeModel
from runtime_model.reference import reference_timings
from runtime_model.rejection import BudgetUnreachableError, rejection_sample
from runtime_model.table import usual_probe
from runtime_model.timing import DEFAULT_SETTINGS, StepTiming
from task_generator.known_distributions import get_distribution
from task_generator.sampling import sample_task_config
from task_generator.task_config import TaskConfig

DISTRIBUTION = get_distribution("phase_one_embedded")


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", type=int, default=0, help="Accepted tasks to time.")
    arguments = parser.parse_args()
    timings = list(reference_timings())
    started = time.perf_counter()
    model, report = fit(timings, seed=0)
    print(f"fit with 5 folds: {time.perf_counter() - started:.1f} s for {len(timings)} timings")
    print(report.summary())
    _speed(model)
    _learning_curve(timings)
    if arguments.measure:
        _over_budget(model, arguments.measure)


def _speed(model: RuntimeModel) -> None:
    rng = np.random.default_rng(0)
    configs = [sample_task_config(DISTRIBUTION, rng) for _ in range(2048)]
    model.predict(configs[:64])
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        for batch in range(0, len(configs), 64):
            model.predict(configs[batch : batch + 64])
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    for _ in range(500):
        sample_task_config(DISTRIBUTION, rng)
    drawn = 500 / (time.perf_counter() - started)
    print(
        f"scored in batches of 64: {len(configs) / np.median(seconds):,.0f} per second; "
        f"drawn: {drawn:,.0f} per second"
    )


def _learning_curve(timings: list[StepTiming]) -> None:
    counts: dict[str, int] = {}
    for timing in timings:
        counts[timing.family] = counts.get(timing.family, 0) + 1
    order = np.random.default_rng(0).permutation(len(timings))
    for most in (16, 32, 64, 128, 256):
        label = f"at most {most:3d} timings per family"
        kept, seen = [], dict.fromkeys(counts, 0)
        for index in order:
            family = timings[index].family
            if seen[family] < most:
                seen[family] += 1
                kept.append(timings[index])
        _, report = fit(kept, seed=0)
        full = [f for f, count in counts.items() if count >= most]
        if not full:
            full, label = list(counts), "all timings"
        errors = [report.for_family(f).median_relative_error for f in full]
        known = [error for error in errors if error is not None]
        print(f"{label}: median error {np.mean(known):.1%} (mean of {len(known)} families)")


def _over_budget(model: RuntimeModel, count: int) -> None:
    rng = np.random.default_rng(1)
    ratios, invalid = [], 0
    for number in range(count):
        budget = float(
            rng.choice(
                [b.seconds for b in DISTRIBUTION.budgets], p=[b.probability for b in DISTRIBUTION.budgets]
            )
        )
        try:
            config = rejection_sample(
                lambda r, s=budget: sample_task_config(DISTRIBUTION, r, seconds=s),
                model.predict,
                rng,
                budget_seconds=budget,
            )
        except BudgetUnreachableError as error:
            print(f"  {error}")
            continue
        timing = _time(config)
        if not timing.valid or timing.seconds_per_step is None or timing.probe_seconds is None:
            invalid += 1
            print(f"  {number + 1}/{count} {config.label}: {timing.reason}", flush=True)
            continue
        ratios.append(timing.seconds_per_step * USUAL_PROBE / timing.probe_seconds / budget)
        print(f"  {number + 1}/{count} {ratios[-1]:.2f} of {budget:g} s · {config.label}", flush=True)
    over = sum(ratio > 1 for ratio in ratios) + invalid
    print(
        f"over budget or invalid: {over} of {len(ratios) + invalid}; the largest ratio {max(ratios):.2f}, "
        f"median {np.median(ratios):.2f}"
    )


def _time(config: TaskConfig) -> StepTiming:
    record = time_unit(config.canonical_json(), DEFAULT_SETTINGS.model_dump(mode="json"), 60.0, 4 << 30)
    return StepTiming.model_validate(record)


USUAL_PROBE = usual_probe(reference_timings())

if __name__ == "__main__":
    main()
