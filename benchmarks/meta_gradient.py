"""Inner steps per second through a whole meta-gradient, as a multiple of what Adam needs for the same trainings.

    python benchmarks/meta_gradient.py [--steps 100] [--only velo-32] [--json PATH]

Eight tasks x one antithetic pair of a 32-unit network on 8x8 digits at batch 128, full ES, both twins counted: as
the published numbers were taken. Adam is timed on the same sixteen trainings in the same shape of program, in turns
with each optimizer, so that what the machine does meanwhile hits both. One thread, as a worker of ours has.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.workers.environment import xla_flags

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("XLA_FLAGS", xla_flags(1))

import jax
import jax.numpy as jnp
import optax

from lopt.architectures import ARCHITECTURES
from lopt.estimators.full_es import FullEsConfig
from lopt.types import LearnedOptimizer
from task_generator.families import MlpConfig
from task_generator.task_config import TaskConfig

ROUNDS = 5
LOW_RANK = {"perturbation": "low_rank", "rank": 1}


class AdamAtTheta:
    """Adam as a learned optimizer with one number, so that both go through the same program."""

    reads_loss = False

    def init_theta(self, key: jax.Array) -> Any:
        return {"log_rate": jnp.float32(-6.9)}

    def transform(self, theta: Any, *, num_steps: Any) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(optax.adam(jnp.exp(theta["log_rate"])))


def _architecture(name: str, **sizes: int) -> Callable[[], LearnedOptimizer]:
    return lambda: ARCHITECTURES[name].model_validate(sizes).build()


CASES: dict[str, tuple[Callable[[], LearnedOptimizer], dict[str, Any]]] = {
    "pacer": (_architecture("pacer"), {}),
    "adafactor_mlp": (_architecture("adafactor_mlp"), {}),
    "velo-32": (_architecture("velo", lstm_hidden_size=32, mlp_bank_size=8), {}),
    "velo-512": (_architecture("velo"), {}),
    "velo-512 low rank": (_architecture("velo"), {"perturbation": LOW_RANK}),
}
"""What is measured, and how theta is perturbed there."""


class Program:
    """One optimizer's meta-gradient, compiled."""

    def __init__(self, learned: LearnedOptimizer, steps: int, **fields: Any) -> None:
        task = TaskConfig(
            family=MlpConfig(
                hidden_size=32,
                num_layers=1,
                image_size=8,
                batch_size=128,
                dataset="digits",
                activation="relu",
                initializer="normal",
            )
        )
        config = FullEsConfig(
            sigma=0.03, min_horizon=steps, max_horizon=steps, num_tasks=8, num_pairs=1, **fields
        )
        estimator = config.build(task.build(), learned)
        self.theta = learned.init_theta(jax.random.key(0))
        self.inner_steps = 16 * steps
        program = jax.jit(lambda t, k: estimator.estimate(t, (), k)[0])
        started = time.perf_counter()
        self.run = program.lower(self.theta, jax.random.key(0)).compile()
        self.seconds(0)
        self.first = time.perf_counter() - started

    def seconds(self, seed: int) -> float:
        """Returns what one meta-gradient takes."""
        key = jax.block_until_ready(jax.random.key(seed))
        started = time.perf_counter()
        jax.block_until_ready(self.run(self.theta, key))
        return time.perf_counter() - started


def measure(name: str, steps: int, adam: Program) -> dict[str, Any]:
    """Returns the figures of one case, in turns with Adam."""
    make, fields = CASES[name]
    program = Program(make(), steps, **fields)
    pairs = [(program.seconds(seed), adam.seconds(seed)) for seed in range(1, ROUNDS + 1)]
    own, reference = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "case": name,
        "inner_steps_per_second": program.inner_steps / own,
        "adam_inner_steps_per_second": adam.inner_steps / reference,
        "times_adam": statistics.median(a / b for a, b in pairs),
        "first_meta_gradient_seconds": program.first,
    }


def main() -> None:
    """Prints a table, and writes it as JSON if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100, help="Inner steps of each unroll.")
    parser.add_argument(
        "--only", action="append", choices=list(CASES), help="Case to measure; may be repeated."
    )
    parser.add_argument("--json", type=Path, help="File to write the figures to.")
    options = parser.parse_args()
    adam = Program(AdamAtTheta(), options.steps)
    print(f"{options.steps} steps on {jax.devices()[0].device_kind}, one thread; compiled without a cache")
    print(f"{'':20s} {'inner steps/s':>14s} {'x Adam':>8s} {'Adam':>8s} {'first, s':>9s}")
    rows = []
    for name in options.only or CASES:
        row = measure(name, options.steps, adam)
        rows.append(row)
        print(
            f"{name:20s} {row['inner_steps_per_second']:14,.0f} {row['times_adam']:8.2f} "
            f"{row['adam_inner_steps_per_second']:8,.0f} {row['first_meta_gradient_seconds']:9.1f}",
            flush=True,
        )
    if options.json is not None:
        options.json.write_text(json.dumps({"steps": options.steps, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
