"""Memory of a meta-gradient against the horizon: flat for evolution strategies, growing for back-propagation.

    python benchmarks/memory.py [--horizons 10 100 1000] [--json PATH]

Temporary memory that the compiled program asks for, as XLA's own analysis says, in MiB. For full and persistent ES
the horizon is a run-time number of one program; unrolled back-propagation keeps every state of its window.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jax

from lopt.architectures import ARCHITECTURES
from lopt.estimators.full_es import FullEsConfig
from lopt.estimators.persistent_es import PersistentEsConfig
from lopt.estimators.unrolled_backprop import UnrolledBackpropConfig
from task_generator.families import MlpConfig
from task_generator.task_config import TaskConfig

TASK = TaskConfig(
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


def estimators(horizon: int) -> dict[str, Any]:
    """Returns every measured estimator's configuration at one horizon."""
    unroll = {"min_horizon": horizon, "max_horizon": horizon, "num_tasks": 8}
    return {
        "full_es": FullEsConfig(sigma=0.03, num_pairs=1, **unroll),
        "persistent_es": PersistentEsConfig(sigma=0.03, num_pairs=1, unroll_length=horizon, **unroll),
        "unrolled_backprop": UnrolledBackpropConfig(unroll_length=horizon, **unroll),
    }


def temporary_mib(config: Any, optimizer: Any) -> float:
    """Returns what one estimate's program needs beside its arguments and results."""
    estimator = config.build(TASK.build(), optimizer)
    theta = optimizer.init_theta(jax.random.key(0))
    state = estimator.init(theta, jax.random.key(1))
    program = jax.jit(estimator.estimate).lower(theta, state, jax.random.key(2)).compile()
    return float(program.memory_analysis().temp_size_in_bytes) / 2**20


def main() -> None:
    """Prints a table, and writes it as JSON if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--horizons", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--architecture", default="pacer", choices=sorted(ARCHITECTURES))
    parser.add_argument("--json", type=Path, help="File to write the figures to.")
    options = parser.parse_args()
    optimizer = ARCHITECTURES[options.architecture].model_validate({}).build()
    print(f"{options.architecture}, MiB   " + "".join(f"{horizon:>12,}" for horizon in options.horizons))
    table = {}
    for name in estimators(options.horizons[0]):
        table[name] = [temporary_mib(estimators(h)[name], optimizer) for h in options.horizons]
        print(f"{name:20s}" + "".join(f"{value:12.1f}" for value in table[name]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"horizons": options.horizons, "mib": table}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
