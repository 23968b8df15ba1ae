"""Time of one optimizer update, jitted, against `optax.adam` in the same process.

    python benchmarks/update_time.py [--json PATH]

Prints nanoseconds per parameter and the ratio to Adam, timed in turns so that both see the same load.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lopt.architectures import ARCHITECTURES

CASES: dict[str, tuple[tuple[int, ...], ...]] = {
    "3 x 32x32": ((32, 32),) * 3,
    "3 x 128x128": ((128, 128),) * 3,
    "3 x 512x512": ((512, 512),) * 3,
}


def make_step(opt: optax.GradientTransformationExtraArgs, params: Any) -> Callable[[], None]:
    """Returns a function that makes one compiled update and waits for it."""
    grads = jax.tree.map(lambda p: 0.1 * p + 0.01, params)
    update = jax.jit(lambda state: opt.update(grads, state, params, value=jnp.float32(1.0)))
    state = opt.init(params)
    jax.block_until_ready(update(state))

    def step() -> None:
        jax.block_until_ready(update(state))

    return step


def measure(shapes: tuple[tuple[int, ...], ...], repeats: int) -> dict[str, float]:
    """Returns the median seconds of one update per optimizer."""
    params = {f"w{i}": jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)}
    steps = {"adam": make_step(optax.with_extra_args_support(optax.adam(1e-3)), params)}
    for name, config in ARCHITECTURES.items():
        learned = config().build()
        steps[name] = make_step(learned.transform(learned.init_theta(jax.random.key(0)), num_steps=100), params)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--repeats", type=int, default=50)
    options = parser.parse_args()
    table: dict[str, dict[str, float]] = {}
    for case, shapes in CASES.items():
        size = sum(a * b for a, b in shapes)
        medians = measure(shapes, options.repeats)
        table[case] = medians
        columns = "  ".join(
            f"{name} {1e9 * s / size:7.1f} ns/param ({s / medians['adam']:.1f}x)" for name, s in medians.items()
        )
        print(f"{case:12s} {columns}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
