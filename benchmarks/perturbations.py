"""Bias and variance of low-rank perturbations beside dense ones, on a real task.

    python benchmarks/perturbations.py [--estimates 200] [--sigma 0.03 0.1] [--ranks 1 2 4] [--json PATH]

Full ES of the shipped `velo` (32/8) on a 16-unit network on 8x8 digits, 20 inner steps, log final loss. Every
estimate is the mean over 32 antithetic pairs, each with a task of its own. Tasks, data and initialisations are the
same for all kinds of directions.

- signal: squared norm of the expected meta-gradient, corrected for what noise adds to a squared mean.
- variance of a pair / signal: how many pairs it takes until noise is as large as the gradient.
- squared distance to dense / signal: of the two expected gradients, corrected likewise, so that 0 means no bias;
  give or take two standard errors over ten blocks. A negative value is an estimate of zero.
- x time: of an estimate, over that with dense directions, taken in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from flows.workers.environment import xla_flags

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("XLA_FLAGS", xla_flags(1))

import jax
import jax.numpy as jnp
import numpy as np

import lopt
from lopt.estimators.full_es import FullEsConfig
from task_generator.families import MlpConfig
from task_generator.task_config import TaskConfig

PAIRS, HORIZON, BLOCKS = 32, 20, 10
DENSE = "dense"
TASK = TaskConfig(
    family=MlpConfig(
        hidden_size=16,
        num_layers=1,
        image_size=8,
        batch_size=32,
        dataset="digits",
        activation="relu",
        initializer="normal",
    )
)


class Estimates(NamedTuple):
    """What one kind of perturbation came to."""

    gradients: np.ndarray  # [blocks, numbers], float64: the mean of each block's estimates
    variance: float  # of one pair: the trace of its covariance
    seconds: float  # median of an estimate


def programs(kinds: dict[str, dict[str, Any]], sigma: float) -> tuple[dict[str, Callable[..., Any]], Any]:
    """Returns one compiled (theta, key) → flat meta-gradient per kind, and theta."""
    learned, theta = lopt.load_theta("shipped:velo")
    compiled: dict[str, Callable[..., Any]] = {}
    for name, perturbation in kinds.items():
        fields = {"min_horizon": HORIZON, "max_horizon": HORIZON, "num_tasks": PAIRS, "num_pairs": 1}
        config = FullEsConfig(sigma=sigma, loss_cap=5.0, perturbation=perturbation, **fields)
        estimator = config.build(TASK.build(), learned)

        def flat(theta: Any, key: jax.Array, estimator: Any = estimator) -> jax.Array:
            gradient = estimator.estimate(theta, (), key)[0].mean
            return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(gradient)])

        compiled[name] = jax.jit(flat)
    return compiled, theta


def measure(kinds: dict[str, dict[str, Any]], sigma: float, count: int) -> dict[str, Estimates]:
    """Returns the estimates of every kind, made in turns."""
    compiled, theta = programs(kinds, sigma)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in kinds}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(-1, count):  # the first compiles
        for name, estimate in compiled.items():
            started = time.perf_counter()
            gradient = np.asarray(estimate(theta, jax.random.key(number + 1)), np.float64)
            if number >= 0:
                seconds[name].append(time.perf_counter() - started)
                drawn[name].append(gradient)
        if number % 20 == 0:
            print(f"  sigma {sigma:g}: {number} of {count}", flush=True)
    found = {}
    for name, gradients in drawn.items():
        stacked = np.stack(gradients)
        blocks = np.stack([part.mean(axis=0) for part in np.array_split(stacked, BLOCKS)])
        variance = PAIRS * float(stacked.var(axis=0, ddof=1).sum())
        found[name] = Estimates(blocks, variance, statistics.median(seconds[name]))
    return found


def squared_distance(one: Estimates, other: Estimates) -> tuple[float, float]:
    """Returns ‖E g₁ − E g₂‖² without bias, and two standard errors.

    The product of two independent estimates of the difference has the right mean, so all pairs of different blocks
    are averaged. The standard error is a jackknife's over blocks.
    """
    differences = one.gradients - other.gradients
    value = _unbiased_square(differences)
    left_out = [_unbiased_square(np.delete(differences, block, axis=0)) for block in range(BLOCKS)]
    error = np.sqrt((BLOCKS - 1) / BLOCKS * np.sum(np.square(np.asarray(left_out) - np.mean(left_out))))
    return value, 2.0 * float(error)


def _unbiased_square(blocks: np.ndarray) -> float:
    count = len(blocks)
    total = np.sum(blocks, axis=0)
    return float((total @ total - np.sum(np.square(blocks))) / (count * (count - 1)))


def rows_of(found: dict[str, Estimates], sigma: float) -> list[dict[str, Any]]:
    """Returns the table's rows."""
    dense = found[DENSE]
    signal = _unbiased_square(dense.gradients)
    rows = []
    for name, estimates in found.items():
        distance, error = (0.0, 0.0) if name == DENSE else squared_distance(estimates, dense)
        rows.append(
            {
                "sigma": sigma,
                "directions": name,
                "signal": _unbiased_square(estimates.gradients),
                "pair_variance_over_signal": estimates.variance / signal,
                "squared_distance_over_signal": distance / signal,
                "two_standard_errors": error / signal,
                "times": estimates.seconds / dense.seconds,
            }
        )
    return rows


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--estimates", type=int, default=200, help="of 32 pairs each; at least 20")
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.03, 0.1])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    args = parser.parse_args()
    if args.estimates < 2 * BLOCKS:
        parser.error(f"--estimates must be at least {2 * BLOCKS}, got {args.estimates}")
    kinds: dict[str, dict[str, Any]] = {DENSE: {"perturbation": "antithetic"}}
    kinds |= {f"rank {rank}": {"perturbation": "low_rank", "rank": rank} for rank in args.ranks}
    rows = [row for sigma in args.sigma for row in rows_of(measure(kinds, sigma, args.estimates), sigma)]
    print(
        f"{'sigma':>6} {'directions':>10} {'signal':>10} {'var/signal':>11} {'distance²/signal':>24} {'x time':>7}"
    )
    for row in rows:
        distance = f"{row['squared_distance_over_signal']:.3f} ± {row['two_standard_errors']:.3f}"
        print(
            f"{row['sigma']:>6g} {row['directions']:>10} {row['signal']:>10.3g} "
            f"{row['pair_variance_over_signal']:>11.1f} {distance:>24} {row['times']:>7.2f}"
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
