"""How fast inner training runs inside one compiled program, family by family.

    python benchmarks/unroll.py [--families mlp,rnn_lm] [--seconds-per-step 1e-4] [--json PATH]

Takes each family's median configuration, by counted operations, among draws of its prior on embedded data that
this machine can train within `--seconds-per-step` (at the rate of operations of a small network; if none fits, the
smallest). Prints inner steps per second with Adam inside the compiled unroll, against the same step
dispatched one by one from Python; the seconds from a configuration to its first step; and those with a persistent
cache. Last, what a choice of activation and initialiser per task costs against one per work unit (C.1).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.family_data import separate_data
from lopt.inner_loop import InnerState, init_inner, inner_step, unroll
from lopt.lanes import ChoicesPerTask, init_lanes, sample_dynamics
from task_generator.datasets.images import EMBEDDED_IMAGES
from task_generator.datasets.text import EMBEDDED_TEXTS
from task_generator.families import FAMILIES
from task_generator.sampling import TaskDistribution, sample_task_configs
from task_generator.task_config import TaskConfig

ADAM = optax.with_extra_args_support(optax.adam(1e-3))
NUM_DRAWS = 200
TARGET_SECONDS = 0.4


def operations_per_second() -> float:
    """Returns the rate at which this machine trains a small network: counted operations per second of an unroll."""
    config = TaskConfig(family=FAMILIES["mlp"].example())
    return config.approximate_cost()["flops_per_step"] * measure(config)["steps_per_second"]


def median_configuration(family: str, max_operations: float) -> TaskConfig:
    """Returns the draw of median size among those of at most `max_operations`, or the smallest draw."""
    distribution = TaskDistribution(
        name="benchmark", families=((family, 1.0),), datasets=(*EMBEDDED_IMAGES, *EMBEDDED_TEXTS)
    )
    draws = sample_task_configs(distribution, seed=0, count=NUM_DRAWS)
    draws.sort(key=lambda config: config.approximate_cost()["flops_per_step"])
    fitting = [c for c in draws if c.approximate_cost()["flops_per_step"] <= max_operations]
    return fitting[len(fitting) // 2] if fitting else draws[0]


def measure(config: TaskConfig) -> dict[str, Any]:
    """Returns the figures of one configuration."""
    start = time.perf_counter()
    family = config.build()
    data, with_data = separate_data(family)
    dynamic = jax.jit(family.sample_dynamic)(jax.random.key(0))
    build_seconds = time.perf_counter() - start

    def init(data: Any, dynamic: Any) -> InnerState:
        return init_inner(with_data(data).task(dynamic), ADAM, jax.random.key(1))

    def train(data: Any, dynamic: Any, state: InnerState, num_steps: jax.Array) -> InnerState:
        task = with_data(data).task(dynamic)
        return unroll(task, ADAM, state, jax.random.key(2), start=0, stop=num_steps)

    def one(data: Any, dynamic: Any, state: InnerState, index: jax.Array) -> InnerState:
        task = with_data(data).task(dynamic)
        return inner_step(task, ADAM, state, jax.random.fold_in(jax.random.key(2), index))[0]

    state = jax.block_until_ready(jax.jit(init)(data, dynamic))
    compiled, seconds = _compile(train, data, dynamic, state, jnp.int32(1))
    jax.clear_caches()
    _, cached_seconds = _compile(train, data, dynamic, state, jnp.int32(1))
    run = partial(compiled, data, dynamic, state)
    num_steps = _steps_for(run, TARGET_SECONDS)
    inside = _median_seconds(lambda: run(jnp.int32(num_steps)), 3) / num_steps
    step = jax.jit(one)
    stepped = min(num_steps, 300)

    def python_loop() -> InnerState:
        current = state
        for index in range(stepped):
            current = step(data, dynamic, current, jnp.int32(index))
        return current

    jax.block_until_ready(python_loop())
    outside = _median_seconds(python_loop, 3) / stepped
    return {
        "config": config.label,
        "num_params": config.approximate_cost()["num_params"],
        "steps_per_second": 1 / inside,
        "stepped_per_second": 1 / outside,
        "ratio": outside / inside,
        "build_seconds": build_seconds,
        "compile_seconds": seconds,
        "cached_compile_seconds": cached_seconds,
    }


def measure_choices(num_tasks: int = 8, num_steps: int = 300) -> dict[str, float]:
    """Returns the seconds per step of `num_tasks` MLPs with one activation for all, and with one for each."""
    shared = TaskConfig(family=FAMILIES["mlp"].example()).build()
    seconds = {}
    for name, family in (("per_work_unit", shared), ("per_task", ChoicesPerTask(shared))):
        dynamics = sample_dynamics(family, jax.random.key(0), num_tasks)
        keys = jax.random.split(jax.random.key(1), num_tasks)

        def train(family: Any, dynamics: Any, states: Any, keys: jax.Array) -> Any:
            def run(dynamic: Any, task_state: Any, key: jax.Array) -> Any:
                inner = InnerState(task_state, ADAM.init(task_state.params))
                return unroll(
                    family.task(dynamic), ADAM, inner, key, start=0, stop=num_steps
                ).task_state.params

            return jax.vmap(run, in_axes=(family.dynamic_axes(), 0, 0))(dynamics, states, keys)

        states = init_lanes(family, dynamics, keys)
        program = jax.jit(partial(train, family))
        jax.block_until_ready(program(dynamics, states, keys))
        seconds[name] = _median_seconds(partial(program, dynamics, states, keys), 5) / num_steps
    return seconds


def _compile(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], float]:
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    jax.block_until_ready(compiled(*arguments))
    return compiled, time.perf_counter() - start


def _steps_for(run: Callable[[jax.Array], Any], seconds: float) -> int:
    once = _median_seconds(lambda: run(jnp.int32(20)), 3) / 20
    return int(np.clip(seconds / once, 20, 20_000))


def _median_seconds(run: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measures, prints, and writes what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", default=",".join(FAMILIES), help="names, separated by commas")
    parser.add_argument("--seconds-per-step", type=float, default=1e-4, help="budget of a configuration")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    names = options.families.split(",")
    if unknown := [name for name in names if name not in FAMILIES]:
        parser.error(f"unknown families {', '.join(unknown)}; known: {', '.join(FAMILIES)}")
    max_operations = operations_per_second() * options.seconds_per_step
    result: dict[str, Any] = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "families": {}}
    print(
        f"{'family':22s}{'steps/s':>10s}{'stepped/s':>11s}{'ratio':>7s}{'first step s':>14s}{'cached s':>10s}"
    )
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        for name in names:
            row = measure(median_configuration(name, max_operations))
            result["families"][name] = row
            print(
                f"{name:22s}{row['steps_per_second']:10,.0f}{row['stepped_per_second']:11,.0f}{row['ratio']:7.1f}"
                f"{row['build_seconds'] + row['compile_seconds']:14.2f}{row['cached_compile_seconds']:10.2f}"
                f"  {row['config']}",
                flush=True,
            )
        choices = measure_choices()
        result["choices"] = choices
        print(
            f"\nchoices per task take {choices['per_task'] / choices['per_work_unit']:.1f} x the time of choices "
            f"per work unit (8 x {FAMILIES['mlp'].example().label()})"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
