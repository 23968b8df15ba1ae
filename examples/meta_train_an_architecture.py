"""Meta-train any architecture in one process, on small tasks of embedded data.

    python examples/meta_train_an_architecture.py --architecture celo2 --minutes 10 --out celo2.npz

The loop that the pipeline (`keirin demo`) spreads over workers, in the open: for each task family, estimate the
meta-gradient of the log final loss with antithetic full ES, average, step Adam on theta. Prints a line per ten
outer steps and keeps the theta with the best validation loss. The weights of `celo2` that come with the package
were made by this script; the file says with which arguments.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import lopt
from lopt import shipped
from lopt.estimators.full_es import FullEsConfig
from task_generator.families import ConvConfig, MlpConfig
from task_generator.task_config import TaskConfig

DIGITS = {"image_size": 8, "dataset": "digits", "activation": "relu", "initializer": "normal"}
TASKS = (
    TaskConfig(family=MlpConfig(hidden_size=32, num_layers=1, batch_size=64, **DIGITS)),
    TaskConfig(family=MlpConfig(hidden_size=16, num_layers=2, batch_size=64, **DIGITS)),
    TaskConfig(
        family=ConvConfig(hidden_size=8, num_layers=2, num_stride_2_layers=1, batch_size=32, **DIGITS)
    ),
)
VALIDATION_SEED = 1_000_000


def estimators(learned: lopt.LearnedOptimizer, args: argparse.Namespace) -> list[Callable[..., Any]]:
    """Returns one compiled (theta, key, σ) → MetaGradient per task family."""
    config = FullEsConfig(
        sigma=args.sigma,
        min_horizon=args.min_horizon,
        max_horizon=args.max_horizon,
        num_tasks=args.tasks,
        num_pairs=args.pairs,
        loss_cap=5.0,
        difference_clip=2.0,
        task_normalization="unit_norm",
    )
    return [jax.jit(config.build(task.build(), learned).measure) for task in TASKS]


def meta_train(learned: lopt.LearnedOptimizer, theta: Any, args: argparse.Namespace) -> tuple[Any, float]:
    """Returns the best averaged theta and its validation loss."""
    measure = estimators(learned, args)
    schedule = optax.cosine_decay_schedule(args.learning_rate, args.steps, alpha=0.05)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    state, average, best, best_loss = optimizer.init(theta), theta, theta, float("inf")
    started = time.monotonic()

    @jax.jit
    def step(theta: Any, state: Any, average: Any, gradients: Any) -> tuple[Any, Any, Any]:
        mean = jax.tree.map(lambda *g: sum(g) / len(g), *gradients)
        updates, state = optimizer.update(mean, state)
        theta = optax.apply_updates(theta, updates)
        return theta, state, jax.tree.map(lambda a, t: 0.9 * a + 0.1 * t, average, theta)

    for outer_step in range(args.steps + 1):
        if outer_step % 10 == 0 or time.monotonic() - started > 60 * args.minutes:
            loss = validate(measure, average)
            if loss < best_loss:
                best, best_loss = average, loss
            minutes = (time.monotonic() - started) / 60
            print(
                f"{minutes:6.1f} min  outer step {outer_step:5d}  validation log loss {loss:7.3f}", flush=True
            )
        if time.monotonic() - started > 60 * args.minutes:
            break
        keys = jax.random.split(jax.random.fold_in(jax.random.key(args.seed), outer_step), len(measure))
        sigma = jnp.float32(args.sigma)
        gradients = [estimate(theta, key, sigma).mean for estimate, key in zip(measure, keys, strict=True)]
        theta, state, average = step(theta, state, average, gradients)
    return best, best_loss


def validate(measure: list[Callable[..., Any]], theta: Any) -> float:
    """Returns the mean log final loss on fixed tasks: σ = 0 makes both twins theta itself."""
    losses = [
        estimate(theta, jax.random.key(VALIDATION_SEED + i), jnp.float32(0.0)).meta_loss
        for i, estimate in enumerate(measure * 2)
    ]
    return float(jnp.mean(jnp.stack(losses)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Meta-trains and writes the weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", default="pacer", choices=sorted(lopt.ARCHITECTURES))
    parser.add_argument("--config", default="{}", help='its sizes as JSON, e.g. {"lstm_hidden_size": 32}')
    parser.add_argument("--start", type=Path, help="weights to start from, as this script writes them")
    parser.add_argument("--out", type=Path, required=True, help="where to write the weights (.npz)")
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after this long")
    parser.add_argument(
        "--steps", type=int, default=500, help="outer steps over which the learning rate falls"
    )
    parser.add_argument("--sigma", type=float, default=0.02, help="standard deviation of the perturbations")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="of Adam on theta")
    parser.add_argument("--min-horizon", type=int, default=30, help="updates of the shortest inner runs")
    parser.add_argument(
        "--max-horizon", type=int, default=300, help="and of the longest; log-uniform between them"
    )
    parser.add_argument("--tasks", type=int, default=4, help="dynamic configurations per family")
    parser.add_argument("--pairs", type=int, default=4, help="antithetic pairs per task")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    config = lopt.ARCHITECTURES[args.architecture].model_validate(json.loads(args.config))
    learned = config.build()
    theta = learned.init_theta(jax.random.key(args.seed))
    if args.start is not None:
        learned, theta = lopt.load_theta(str(args.start))
    theta, loss = meta_train(learned, theta, args)
    shipped.write_weights(args.out, config, theta, note=" ".join(arguments or sys.argv[1:]))
    print(f"validation log loss {loss:.3f}; use it: lopt.load('{args.out}', num_steps=...)")


if __name__ == "__main__":
    main()
