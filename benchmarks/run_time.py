"""The run-time model: configurations scored per second, error by number of timings, and accepted tasks over budget.

    python benchmarks/run_time.py [--folds N] [--compare] [--measure N] [--beside N]

The model is that of the shipped timings. `--compare` fits the paper's networks beside the estimators that are
used, which takes much longer. `--measure N` draws N tasks by rejection sampling from phase one on embedded data
(budgets as the phase has them), times each in a process of its own, and says how many exceed their budget and
by what. `--beside N` times N configurations alone, and again while a second process times others. Measure on a
quiet machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from typing import Any, NoReturn

from flows.workers.environment import xla_flags

os.environ.setdefault("NPROC", "1")
os.environ.setdefault("XLA_FLAGS", xla_flags(1))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from flows.run_times.fit_table import family_errors
from flows.servers import lifeline
from flows.workers.units import time_unit
from runtime_model.calibration import summarize
from runtime_model.estimators import COMPARED, ESTIMATORS
from runtime_model.fitting import fit
from runtime_model.prediction import RuntimeModel
from runtime_model.reference import reference_timings
from runtime_model.rejection import BudgetUnreachableError, rejection_sample
from runtime_model.table import usual_probe
from runtime_model.targets import missed_targets
from runtime_model.timing import DEFAULT_SETTINGS, StepTiming
from task_generator.known_distributions import get_distribution
from task_generator.sampling import sample_task_config
from task_generator.task_config import TaskConfig

DISTRIBUTION = get_distribution("phase_one_embedded")
FOLDS = 10
"""Of 250 timings, 225 are fitted to and 25 held out."""
WELL_TIMED = 220


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folds", type=int, default=FOLDS, help="Of the held-out error.")
    parser.add_argument("--compare", action="store_true", help="Fit the paper's networks, too.")
    parser.add_argument("--measure", type=int, default=0, help="Accepted tasks to time.")
    parser.add_argument(
        "--beside", type=int, default=0, help="Configurations to time alone and beside others."
    )
    parser.add_argument("--busy", action="store_true", help=argparse.SUPPRESS)  # be the second process
    arguments = parser.parse_args()
    if arguments.busy:
        _time_for_ever()
    timings = list(reference_timings())
    started = time.perf_counter()
    folds, estimators = arguments.folds, COMPARED if arguments.compare else ESTIMATORS
    model, report = fit(timings, seed=0, num_folds=folds, estimators=estimators)
    print(f"fit with {folds} folds: {time.perf_counter() - started:.1f} s for {len(timings)} timings")
    print(report.summary())
    well_timed = {f for f in report.families if report.for_family(f).num_timed >= WELL_TIMED}
    points = [point for point in report.points if point.family in well_timed]
    print(f"the {len(well_timed)} families with at least {WELL_TIMED} that ran: ", end="")
    print(summarize(points, num_folds=folds).summary())
    table, rows = family_errors(report)
    Console(width=140).print(table)
    if arguments.compare:
        _print_comparison(rows)
    print("targets missed:", *(missed_targets(report) or ["none"]), sep="\n  ")
    _speed(model)
    _learning_curve(timings)
    if arguments.measure:
        _over_budget(model, arguments.measure)
    if arguments.beside:
        _beside(arguments.beside)


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


def _print_comparison(rows: list[dict[str, Any]]) -> None:
    """Prints every estimator's median error, and the networks' areas under the curve of validity."""
    names = [name for name in rows[-1] if name in COMPARED or name.startswith("AUC ")]
    table = Table("family", "AUC", *names, box=None)
    for row in rows:
        table.add_row(row["family"], row["AUC"], *(str(row.get(name, "–")) for name in names))
    Console(width=140).print(table)


def _learning_curve(timings: list[StepTiming]) -> None:
    """Prints the error of the same families at growing numbers of their timings."""
    counts = Counter(timing.family for timing in timings if timing.num_steps)
    full = [family for family, count in counts.items() if count >= WELL_TIMED]
    order = np.random.default_rng(0).permutation(len(timings))
    for most in (16, 32, 64, 128, 256):
        kept, seen = [], Counter[str]()
        for index in order:
            family = timings[index].family
            if seen[family] < most:
                seen[family] += 1
                kept.append(timings[index])
        _, report = fit(kept, seed=0)
        parts = [report.for_family(family) for family in full]
        median, p90 = (
            np.mean([getattr(part, f"{name}_relative_error") for part in parts]) for name in ("median", "p90")
        )
        print(
            f"at most {most:3d} timings per family: error median {median:.1%}, 90th percentile {p90:.1%} "
            f"(means of the {len(full)} families with at least {WELL_TIMED} that ran)",
            flush=True,
        )


def _over_budget(model: RuntimeModel, count: int) -> None:
    rng = np.random.default_rng(1)
    ratios: list[float] = []
    raw: list[float] = []
    invalid = 0
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
        raw.append(timing.seconds_per_step / budget)
        print(f"  {number + 1}/{count} {ratios[-1]:.2f} of {budget:g} s · {config.label}", flush=True)
    for name, values in (("at the machine's usual speed", ratios), ("at its speed of the moment", raw)):
        over, of = sum(ratio > 1 for ratio in values) + invalid, len(values) + invalid
        interval = binomtest(over, of).proportion_ci(method="wilson")
        print(
            f"over budget or invalid, {name}: {over} of {of} (95 %: {interval.low:.1%} to {interval.high:.1%}); "
            f"the largest ratio {max(values):.2f}, median {np.median(values):.2f}"
        )


def _beside(count: int) -> None:
    """Prints how seconds change when a second process times something else meanwhile."""
    rng = np.random.default_rng(2)
    configs = [sample_task_config(DISTRIBUTION, rng, seconds=4e-4) for _ in range(count)]
    alone = _time_each(configs, "alone")
    other = lifeline.start([sys.executable, __file__, "--busy"], grace=0.0)  # ends with this process, however
    try:
        beside = _time_each(configs, "beside")
    finally:
        lifeline.stop(other, timeout=10.0)
    pairs = [
        (a.seconds_per_step, b.seconds_per_step, b.cpu_share)
        for a, b in zip(alone, beside, strict=True)
        if a.seconds_per_step and b.seconds_per_step and a.valid and b.valid
    ]
    ratio = np.asarray([b / a for a, b, _ in pairs])
    share = np.median([share or 1.0 for *_, share in pairs])
    low, middle, high = np.quantile(ratio, [0.1, 0.5, 0.9])
    print(
        f"beside a second process that times, over alone: median {middle:.2f}, 80 % between {low:.2f} and "
        f"{high:.2f}, of {len(pairs)} configurations; median share of a core {share:.2f}"
    )


def _time_each(configs: list[TaskConfig], how: str) -> list[StepTiming]:
    timings = []
    for number, config in enumerate(configs, start=1):
        timings.append(_time(config))
        seconds = timings[-1].seconds_per_step
        print(f"  {how} {number}/{len(configs)} {seconds or timings[-1].reason} · {config.label}", flush=True)
    return timings


def _time_for_ever() -> NoReturn:
    rng = np.random.default_rng(3)
    while True:
        _time(sample_task_config(DISTRIBUTION, rng, seconds=4e-4))


def _time(config: TaskConfig) -> StepTiming:
    record = time_unit(config.canonical_json(), DEFAULT_SETTINGS.model_dump(mode="json"), 60.0, 4 << 30)
    return StepTiming.model_validate(record)


USUAL_PROBE = usual_probe(reference_timings())

if __name__ == "__main__":
    main()
