"""What the set `embedded24` costs: every task, one optimizer, one seed, on one core.

    taskset -c 0 python benchmarks/embedded_set.py [--steps 2000] [--learning-rate 1e-3] [--json PATH]

Trains each task with Adam and prints seconds, compilation apart, and the normalised training loss at the start and
at the end (1 is chance, capped at 10).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lopt.family_data import separate_data
from lopt.inner_loop import LearningCurve, train_curve
from task_generator.evaluation_set import EvaluationTask, get_evaluation_set


def measure(task: EvaluationTask, num_steps: int, learning_rate: float) -> dict[str, Any]:
    """Returns one task's seconds and losses."""
    start = time.perf_counter()
    family = task.config.build()
    data, with_data = separate_data(family)
    optimizer = optax.with_extra_args_support(optax.adam(learning_rate))

    def run(data: Any, key: jax.Array, eval_every: jax.Array) -> tuple[LearningCurve, jax.Array]:
        dynamic_key, run_key = jax.random.split(key)
        family = with_data(data)
        problem = family.task(family.sample_dynamic(dynamic_key))
        curve = train_curve(
            problem,
            optimizer,
            run_key,
            eval_every=eval_every,
            num_points=2,
            splits=("train",),
            num_eval_batches=8,
        )
        return curve, jax.vmap(problem.normalize)(curve.losses["train"])

    arguments = (data, jax.random.key(0), jnp.int32(num_steps))
    compiled = jax.jit(run).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - start
    start = time.perf_counter()
    _, losses = jax.block_until_ready(compiled(*arguments))
    return {
        "task": task.name,
        "compile_seconds": compile_seconds,
        "train_seconds": time.perf_counter() - start,
        "start": float(losses[0]),
        "end": float(losses[1]),
    }


def main() -> None:
    """Measures, prints, and writes what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", default="embedded24", help="name of an evaluation set")
    parser.add_argument("--steps", type=int, default=2000, help="inner steps per task")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of Adam")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    rows = []
    print(f"{'task':34s}{'compile s':>11s}{'train s':>9s}{'start':>8s}{'end':>8s}")
    for task in get_evaluation_set(options.set):
        row = measure(task, options.steps, options.learning_rate)
        rows.append(row)
        print(
            f"{row['task']:34s}{row['compile_seconds']:11.2f}{row['train_seconds']:9.2f}"
            f"{row['start']:8.3f}{row['end']:8.3f}",
            flush=True,
        )
    total = sum(row["compile_seconds"] + row["train_seconds"] for row in rows)
    print(f"{len(rows)} tasks, {options.steps} steps each: {total / 60:.1f} minutes")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
