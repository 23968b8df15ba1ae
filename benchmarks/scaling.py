"""One learner and 10 to 10 000 pretended workers: updates per second, staleness, drops, the learner's own time.

    python benchmarks/scaling.py [--architecture velo] [--ways dense tree] [--workers 10 100] [--json P] [--plot P]

The learner's code is the real one (`curriculum.asynchronous.loop`), and so is the aggregators'; workers are
simulated. What their units take comes from the timings in the package: sixteen trainings of a task at horizons of
100 to 1 000 steps, so that units take from milliseconds to minutes. Batches have a unit per worker, at least eight.

Ways for meta-gradients to come in (`--ways`):

dense           each by itself, every number of it
seeds           rank-one perturbations, drawn again from seeds and weights
partial_sums    batches eight times as large, and up to eight units of a worker added up there
fan_in          sixteen units of a group of workers added up on their way
large_units     units eight times as large: 64 tasks instead of 8
tree            large units, and fan-in

Columns: trainings per second of the simulated clock; mean staleness and share dropped at a maximum of five;
processor time of the learner per training, and as a share of the clock, which is saturated at 100 %; that of the
busiest aggregator; megabytes per second that come in at the learner, and that theta takes to go out, once per
worker and outer step or with every message, whichever is less.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from curriculum.asynchronous.errands import Answer, merge
from curriculum.asynchronous.fan_in import FanInStream
from curriculum.asynchronous.simulated_stream import SimulatedStream
from curriculum.events import OuterStepDone
from curriculum.learner import init_learner
from curriculum.meta_train_asynchronously import meta_train_asynchronously
from curriculum.phase import Phase, ThetaOptimizerConfig
from curriculum.transports import TRANSPORTS, num_bytes
from curriculum.work_stream import Finished, WorkStream
from curriculum.worker import WorkResult, WorkUnit
from lopt.architectures import ARCHITECTURES
from lopt.estimators.full_es import FullEsConfig
from lopt.perturbations import AntitheticConfig, LowRankConfig, PerturbationConfig
from lopt.types import Combination, MetaGradient
from runtime_model.reference import reference_timings
from runtime_model.rejection import ProblemSizeThresholds
from task_generator.task_config import TaskConfig

NUM_TASKS, OUTER_STEPS = 64, 40
TASKS_PER_UNIT, SHORTEST, LONGEST = 8, 100, 1000
SIZES = (1e-5, 1e-3)
"""Seconds per inner step of the tasks."""


class Way(NamedTuple):
    """How meta-gradients come in."""

    transport: str = "dense"
    perturbation: PerturbationConfig = AntitheticConfig()
    units_per_batch: int = 1
    """And worker."""
    fan_in: int = 1
    unit_size: int = 1


WAYS = {
    "dense": Way(),
    "seeds": Way(transport="seeds_and_losses", perturbation=LowRankConfig(rank=1)),
    "partial_sums": Way(transport="partial_sums", units_per_batch=8),
    "fan_in": Way(fan_in=16),
    "large_units": Way(unit_size=8),
    "tree": Way(fan_in=16, unit_size=8),
}


class Observed:
    """The stream as the learner sees it; knows what the simulation took of this process's time, and what came."""

    def __init__(self, inner: WorkStream) -> None:
        self._inner, self.own_seconds, self.bytes_in, self.messages = inner, 0.0, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def start(self, *args: Any, **kwargs: Any) -> None:
        began = time.process_time()
        self._inner.start(*args, **kwargs)
        self.messages += 1
        self.own_seconds += time.process_time() - began

    def wait(self, seconds: float) -> list[Finished]:
        began = time.process_time()
        finished = self._inner.wait(seconds)
        answers = [one.result for one in finished if isinstance(one.result, Answer)]
        self.bytes_in += sum(num_bytes(answer.packed) for answer in answers if answer.packed is not None)
        self.own_seconds += time.process_time() - began
        return finished


class Aggregators:
    """Add up, and know how long it took each of them."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}

    def add(self, group: int, answers: Sequence[Answer]) -> Answer:
        began = time.process_time()
        total = merge(answers)
        self.seconds[group] = self.seconds.get(group, 0.0) + time.process_time() - began
        return total


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


def durations(seconds: dict[str, float], unit_size: int) -> Callable[[WorkUnit, str], float]:
    """Returns what a unit takes: its task's step times runs and a log-uniform horizon."""
    rng = np.random.default_rng(1)

    def of(unit: WorkUnit, worker: str) -> float:
        horizon = np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST)))
        return float(seconds[unit.task] * 2 * TASKS_PER_UNIT * unit_size * horizon)

    return of


def stand_in(way: Way, theta: Any) -> Callable[[WorkUnit, Any], WorkResult]:
    """Returns what a unit answers: the same gradient every time, as the way packs it."""
    lanes = TASKS_PER_UNIT * way.unit_size
    combination = Combination(jax.random.key(1), jnp.full((lanes, 2), 1e-3, jnp.float32))
    ones = jax.tree.map(np.ones_like, theta)
    packed = TRANSPORTS[way.transport].pack(
        MetaGradient(ones, jnp.float32(0), jnp.float32(0), {}, combination)
    )
    result = WorkResult(packed, 1.0, 10.0, {"horizon": 5.0}, squared_norm=1.0)
    return lambda unit, theta: result


def phase_of(way: Way, batch: int) -> Phase:
    """Returns a phase without validations."""
    return Phase(
        name="simulated",
        summary="of a benchmark",
        distribution="demo",
        problem_size=ProblemSizeThresholds(seconds=(1e-3,), probabilities=(1.0,)),
        num_static_configs=NUM_TASKS,
        estimator=FullEsConfig(
            sigma=0.01,
            min_horizon=SHORTEST,
            max_horizon=LONGEST,
            num_tasks=TASKS_PER_UNIT * way.unit_size,
            num_pairs=1,
            perturbation=way.perturbation,
        ),
        theta_optimizer=ThetaOptimizerConfig(learning_rate=1e-4, gradient_clip=1.0),
        outer_steps=OUTER_STEPS,
        validate_every=10_000,
        checkpoint_every=10_000,
        mode="asynchronous",
        batch_size=batch,
        unit_timeout=1e6,
        transport=way.transport,
    )


def simulate(architecture: str, name: str, num_workers: int) -> dict[str, Any]:
    """Returns the figures of one way and number of workers."""
    way, (tasks, seconds) = WAYS[name], tasks_and_seconds()
    config = ARCHITECTURES[architecture].model_validate({})
    theta = jax.tree.map(np.asarray, config.build().init_theta(jax.random.key(0)))
    phase = phase_of(way, max(8, num_workers * way.units_per_batch))
    simulated = SimulatedStream(num_workers, durations(seconds, way.unit_size), result=stand_in(way, theta))
    aggregators, clock = Aggregators(), lambda: simulated.now
    group_of = lambda worker: int(worker[1:]) // way.fan_in
    between = FanInStream(simulated, way.fan_in, group_of, clock, add=aggregators.add)
    stream = Observed(simulated if way.fan_in == 1 else between)
    state = init_learner(phase, theta)._replace(best_validation=jnp.float32(0.0))  # none at the start
    began = time.process_time()
    events = meta_train_asynchronously(phase, tasks, config, state, stream, seed=0, clock=clock)
    steps = [event for event in events if isinstance(event, OuterStepDone)]
    learner = time.process_time() - began - stream.own_seconds
    return figures(name, num_workers, steps, stream, simulated.now, learner, aggregators, theta)


def figures(
    name: str,
    num_workers: int,
    steps: Sequence[OuterStepDone],
    stream: Observed,
    clock: float,
    learner: float,
    aggregators: Aggregators,
    theta: Any,
) -> dict[str, Any]:
    """Returns a row of the table."""
    way, dropped = WAYS[name], steps[-1].metrics["dropped_as_stale"]
    units = sum(step.num_inner_steps for step in steps) / 10.0  # stale ones included
    trainings = 2 * TASKS_PER_UNIT * way.unit_size * units
    theta_sent = min(stream.messages, num_workers * OUTER_STEPS)
    return {
        "way": name,
        "workers": num_workers,
        "outer_steps_per_second": OUTER_STEPS / clock,
        "trainings_per_second": trainings / clock,
        "staleness": float(np.mean([step.metrics["staleness_mean"] for step in steps])),
        "dropped": dropped / units,
        "learner_microseconds": 1e6 * learner / trainings,
        "learner_share": learner / clock,
        "aggregator_share": max(aggregators.seconds.values(), default=0.0) / clock,
        "megabytes_in": 1e-6 * stream.bytes_in / clock,
        "megabytes_out": 1e-6 * num_bytes(theta) * theta_sent / clock,
    }


def plot(rows: Sequence[dict[str, Any]], path: Path, architecture: str) -> None:
    """Draws the learner's share, what comes in, and staleness, against the workers; a line for each way."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    columns = (
        ("learner_share", "learner's processor time, % of the clock", 100.0),
        ("megabytes_in", "meta-gradients in, MB/s", 1.0),
        ("staleness", "mean staleness, outer steps", 1.0),
    )
    for axis, (column, label, factor) in zip(axes, columns, strict=True):
        for name in dict.fromkeys(row["way"] for row in rows):
            own = [row for row in rows if row["way"] == name]
            axis.plot(
                [row["workers"] for row in own], [factor * row[column] for row in own], "o-", label=name
            )
        axis.set(xscale="log", xlabel="workers", title=label)
        axis.grid(alpha=0.3)
        if column != "staleness":
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
    axes[0].axhline(100.0, color="tab:red", linewidth=1)
    axes[2].legend(fontsize="small")
    figure.suptitle(f"One learner, simulated workers, {architecture}")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Prints a table; writes it as JSON, and draws it, if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", default="pacer", choices=sorted(ARCHITECTURES))
    parser.add_argument("--ways", nargs="+", default=["dense"], choices=list(WAYS))
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 32, 100, 316, 1000, 3162, 10_000])
    parser.add_argument("--json", type=Path, help="File to write the figures to.")
    parser.add_argument("--plot", type=Path, help="Picture to draw.")
    options = parser.parse_args()
    print(f"{options.architecture}, {NUM_TASKS} tasks")
    print(
        "way           workers  steps/s  trainings/s  staleness  dropped  learner us/training  learner  aggregator"
        "    MB/s in      out"
    )
    rows = []
    for name in options.ways:
        simulate(options.architecture, name, 8)  # compiles what the learner uses
        for num_workers in options.workers:
            row = simulate(options.architecture, name, num_workers)
            rows.append(row)
            print(
                f"{name:13s} {num_workers:7d} {row['outer_steps_per_second']:8.2f} "
                f"{row['trainings_per_second']:12.1f} {row['staleness']:10.2f} {row['dropped']:8.1%} "
                f"{row['learner_microseconds']:20.1f} {row['learner_share']:8.1%} "
                f"{row['aggregator_share']:11.1%} {row['megabytes_in']:10.2f} {row['megabytes_out']:8.2f}",
                flush=True,
            )
    if options.json is not None:
        options.json.write_text(json.dumps({"architecture": options.architecture, "rows": rows}, indent=1))
    if options.plot is not None:
        plot(rows, options.plot, options.architecture)


if __name__ == "__main__":
    main()
