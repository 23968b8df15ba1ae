"""A run-time model on a machine that it was not fitted on: its error after 0, 5, 10 and 20 timings there.

    python benchmarks/transfer.py [--count N]

The other machine is this one without vector instructions beyond SSE 4.2, for which XLA compiles where it is told
to. N configurations of seven families, none of which the shipped timings hold, are timed so. Of those, 20 at most
correct the model of the shipped timings, and the others are predicted; five random choices. Takes minutes; measure
on a quiet machine.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("NPROC", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["XLA_FLAGS"] = (
    "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 --xla_cpu_max_isa=SSE4_2"
)

import numpy as np

from flows.workers.units import time_unit
from runtime_model.calibration import INTERVAL_Z
from runtime_model.fitting import fit
from runtime_model.prediction import RuntimeModel
from runtime_model.reference import reference_timings
from runtime_model.table import timing_table
from runtime_model.timing import DEFAULT_SETTINGS, StepTiming
from task_generator.known_distributions import family_distribution
from task_generator.sampling import sample_task_configs
from task_generator.task_config import TaskConfig

FAMILIES = ("mlp", "conv", "autoencoder", "vae", "rnn_lm", "logistic_regression", "algorithmic")
STREAM = 1
"""The shipped timings are of stream 0."""
CHOICES = 5


def main() -> None:
    """Times, corrects and predicts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=70, help="Configurations to time.")
    timings = _time_all(parser.parse_args().count)
    base, _ = fit(reference_timings(), seed=0)
    table = timing_table(timings, TaskConfig)
    seconds = np.exp(table.log_seconds)
    print(f"{len(timings)} configurations; seconds there over those predicted for the reference machine:")
    ratio = seconds / base.predict(_configs(timings)).seconds
    low, middle, high = np.quantile(ratio, [0.1, 0.5, 0.9])
    print(f"  median {middle:.2f}, 80 % between {low:.2f} and {high:.2f}")
    for number in (0, 5, 10, 20):
        _report(number, timings, seconds, base)


def _time_all(count: int) -> list[StepTiming]:
    per_family = -(-count // len(FAMILIES))
    drawn = [sample_task_configs(family_distribution(name), STREAM, per_family) for name in FAMILIES]
    timings = []
    for config in [config for turn in zip(*drawn, strict=True) for config in turn][:count]:
        settings = DEFAULT_SETTINGS.model_copy(update={"update": "none"}).model_dump(mode="json")
        timing = StepTiming.model_validate(time_unit(config.canonical_json(), settings, 60.0, 4 << 30))
        if timing.valid:
            timings.append(timing)
        print(f"  {config.label}: {timing.seconds_per_step or timing.reason}", flush=True)
    return timings


def _configs(timings: list[StepTiming]) -> list[TaskConfig]:
    return [TaskConfig.model_validate_json(timing.config_json) for timing in timings]


def _report(number: int, timings: list[StepTiming], seconds: np.ndarray, base: RuntimeModel) -> None:
    """Prints the error of what `number` timings did not correct, over random choices of them."""
    errors, inside = [], []
    for choice in range(CHOICES if number else 1):
        order = np.random.default_rng(choice).permutation(len(timings))
        model = base
        if number:
            here = [timings[i] for i in order[:number]]
            model, _ = fit(here, seed=0, base=base, estimators={}, num_folds=3)
        left = order[number:]
        predicted = model.predict(_configs([timings[i] for i in left]))
        log_ratio = np.log(predicted.seconds / seconds[left])
        errors.append(np.abs(np.exp(log_ratio) - 1))
        inside.append(np.abs(log_ratio) < INTERVAL_Z * predicted.log_std)
    median, p90 = (np.mean([np.quantile(e, q) for e in errors]) for q in (0.5, 0.9))
    print(
        f"after {number:2d} timings: relative error median {median:.0%}, 90th percentile {p90:.0%}; "
        f"80 % intervals cover {np.mean(inside):.0%}"
    )


if __name__ == "__main__":
    main()
