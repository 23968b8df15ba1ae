"""One learner and 10 to 10 000 pretended workers: updates per second, staleness, drops, the learner's own time.

    python benchmarks/scaling.py [--architecture pacer] [--workers 10 100 1000] [--json PATH] [--plot PATH]

The learner's code is the real one (`curriculum.asynchronous`); workers are simulated, and what their units take
comes from the timings in the package: sixteen trainings of a task at horizons of 100 to 1 000 steps, so that
units take from milliseconds to minutes. Batches have as many meta-gradients as there are workers, at least eight.

Columns: outer steps and meta-gradients per second of the simulated clock; mean staleness and share dropped at a
maximum of five; processor time of the learner per meta-gradient, and as a share of the clock, which is saturated at
100 %; megabytes per second that come in and go out, were meta-gradients and theta sent with every unit.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from curriculum.asynchronous import meta_train_asynchronously
from curriculum.events import OuterStepDone
from curriculum.learner import init_learner
from curriculum.phase import Phase, ThetaOptimizerConfig
from curriculum.simulated_stream import SimulatedStream
from curriculum.worker import WorkUnit
from lopt.architectures import ARCHITECTURES
from lopt.estimators.full_es import FullEsConfig
from runtime_model.reference import reference_timings
from runtime_model.rejection import ProblemSizeThresholds
from task_generator.task_config import TaskConfig

NUM_TASKS, OUTER_STEPS = 64, 40
RUNS, SHORTEST, LONGEST = 16, 100, 1000
SIZES = (1e-5, 1e-3)
"""Seconds per inner step of the tasks."""


class TimedStream(SimulatedStream):
    """Knows how much of this process's time the simulation itself took."""

    own_seconds = 0.0

    def start(self, *args: Any, **kwargs: Any) -> None:
        began = time.process_time()
        super().start(*args, **kwargs)
        self.own_seconds += time.process_time() - began

    def wait(self, seconds: float) -> Any:
        began = time.process_time()
        finished = super().wait(seconds)
        self.own_seconds += time.process_time() - began
        return finished


def tasks_and_seconds() -> tuple[list[TaskConfig], dict[str, float]]:
    """Returns tasks of the reference timings, and the seconds per inner step of each."""
    timings = [
        t for t in reference_timings() if t.valid and SIZES[0] <= (t.seconds_per_step or 0) <= SIZES[1]
    ]
    chosen = np.random.default_rng(0).choice(len(timings), NUM_TASKS, replace=False)
    pairs = [
        (TaskConfig.model_validate_json(timings[i].config_json), timings[i].seconds_per_step or 0.0)
        for i in chosen
    ]
    return [task for task, _ in pairs], {task.canonical_json(): seconds for task, seconds in pairs}


def durations(seconds: dict[str, float]) -> Callable[[WorkUnit, str], float]:
    """Returns what a unit takes: its task's step times runs and a log-uniform horizon."""
    rng = np.random.default_rng(1)

    def of(unit: WorkUnit, worker: str) -> float:
        horizon = np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST)))
        return float(seconds[unit.task] * RUNS * horizon)

    return of


def simulate(architecture: str, num_workers: int) -> dict[str, float]:
    """Returns the figures of one number of workers."""
    tasks, seconds = tasks_and_seconds()
    config = ARCHITECTURES[architecture].model_validate({})
    theta = jax.tree.map(np.asarray, config.build().init_theta(jax.random.key(0)))
    batch = max(8, num_workers)
    phase = Phase(
        name="simulated",
        summary="of a benchmark",
        distribution="demo",
        problem_size=ProblemSizeThresholds(seconds=(1e-3,), probabilities=(1.0,)),
        num_static_configs=NUM_TASKS,
        estimator=FullEsConfig(
            sigma=0.01, min_horizon=SHORTEST, max_horizon=LONGEST, num_tasks=8, num_pairs=1
        ),
        theta_optimizer=ThetaOptimizerConfig(learning_rate=1e-4, gradient_clip=1.0),
        outer_steps=OUTER_STEPS,
        validate_every=10_000,
        checkpoint_every=10_000,
        mode="asynchronous",
        batch_size=batch,
        unit_timeout=1e6,
    )
    stream = TimedStream(num_workers, durations(seconds))
    state = init_learner(phase, theta)._replace(best_validation=jax.numpy.float32(0.0))  # none at the start
    began = time.process_time()
    steps = [
        event
        for event in meta_train_asynchronously(
            phase, tasks, config, state, stream, seed=0, clock=lambda: stream.now
        )
        if isinstance(event, OuterStepDone)
    ]
    learner = time.process_time() - began - stream.own_seconds
    gradients = OUTER_STEPS * batch
    dropped = steps[-1].metrics["dropped_as_stale"]
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(theta))
    return {
        "workers": num_workers,
        "outer_steps_per_second": OUTER_STEPS / stream.now,
        "gradients_per_second": gradients / stream.now,
        "staleness": float(np.mean([step.metrics["staleness_mean"] for step in steps])),
        "dropped": dropped / (gradients + dropped),
        "learner_microseconds": 1e6 * learner / (gradients + dropped),
        "learner_share": learner / stream.now,
        "megabytes_per_second": 2e-6 * num_bytes * (gradients + dropped) / stream.now,
    }


def plot(rows: list[dict[str, float]], path: Path, architecture: str) -> None:
    """Draws updates, the learner's share and staleness against the number of workers."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    columns = (
        ("gradients_per_second", "meta-gradients per second", 1.0),
        ("learner_share", "learner's processor time, % of the clock", 100.0),
        ("staleness", "mean staleness, outer steps", 1.0),
    )
    for axis, (name, label, factor) in zip(axes, columns, strict=True):
        axis.plot([row["workers"] for row in rows], [factor * row[name] for row in rows], "o-")
        axis.set(xscale="log", xlabel="workers", title=label)
        axis.grid(alpha=0.3)
        if name != "staleness":
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
    axes[1].axhline(100.0, color="tab:red", linewidth=1)
    figure.suptitle(f"One learner, simulated workers, {architecture}")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Prints a table; writes it as JSON, and draws it, if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", default="pacer", choices=sorted(ARCHITECTURES))
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 32, 100, 316, 1000, 3162, 10_000])
    parser.add_argument("--json", type=Path, help="File to write the figures to.")
    parser.add_argument("--plot", type=Path, help="Picture to draw.")
    options = parser.parse_args()
    print(f"{options.architecture}, {NUM_TASKS} tasks")
    print("workers  steps/s  gradients/s  staleness  dropped  learner us/gradient  learner share      MB/s")
    simulate(options.architecture, 8)  # compiles what the learner uses
    rows = []
    for num_workers in options.workers:
        row = simulate(options.architecture, num_workers)
        rows.append(row)
        print(
            f"{num_workers:7d} {row['outer_steps_per_second']:8.2f} {row['gradients_per_second']:12.1f} "
            f"{row['staleness']:10.2f} {row['dropped']:8.1%} {row['learner_microseconds']:20.0f} "
            f"{row['learner_share']:14.1%} {row['megabytes_per_second']:9.2f}",
            flush=True,
        )
    if options.json is not None:
        options.json.write_text(json.dumps({"architecture": options.architecture, "rows": rows}, indent=1))
    if options.plot is not None:
        plot(rows, options.plot, options.architecture)


if __name__ == "__main__":
    main()
