"""Where the time of an inner step goes: drawing the batch, the task's gradient, the optimizer.

    python benchmarks/inner_step.py [--only adam] [--steps 100] [--kernels 10]

The programs of `meta_gradient.py`, sixteen trainings in one, and Adam for the same trainings. The shares are those
of the compiled kernels in a profile, by the scopes of `lopt.inner_loop`; the microseconds are those shares of what
a step of one training takes without the profiler. `--kernels N` lists each program's N longest.

- batch: random numbers, and gathering what they choose.
- gradient: the task's forward and backward pass.
- optimizer: its update.
- loop: everything else that computes: adding updates, copies that the loop makes.
- start: what it takes to start the kernels, one after the other.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
from meta_gradient import CASES, AdamAtTheta, Program

PARTS = ("batch", "gradient", "optimizer", "loop", "start")
STARTING = "ThunkExecutor::Execute"
"""XLA's own name for what runs kernels, less the kernels."""
REPEATS = 5


def program(name: str, steps: int) -> Program:
    """Returns the compiled program of one case."""
    if name == "adam":
        return Program(AdamAtTheta(), steps)
    make, fields = CASES[name]
    return Program(make(), steps, **fields)


def kernel_seconds(measured: Program) -> Counter[str]:
    """Returns the seconds of every kernel of one run, by its instruction's name, without those that it contains."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            measured.seconds(REPEATS)
        trace = next(Path(folder).rglob("*.trace.json.gz"))
        events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    threads: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("ph") == "X":
            threads[event["tid"]].append(event)
    seconds: Counter[str] = Counter()
    for thread in threads.values():
        _add_own_time(seconds, thread)
    return seconds


def _add_own_time(seconds: Counter[str], events: list[dict[str, Any]]) -> None:
    enclosing: list[tuple[str, float]] = []
    for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
        name, duration = event["name"].split("#")[0], event["dur"] * 1e-6
        while enclosing and enclosing[-1][1] <= event["ts"]:
            enclosing.pop()
        if enclosing:
            seconds[enclosing[-1][0]] -= duration
        seconds[name] += duration
        enclosing.append((name, event["ts"] + event["dur"]))


def scopes(measured: Program) -> dict[str, str]:
    """Returns the scope of every instruction, by its name; "" where the compiler has made it up."""
    found = re.findall(
        r'^\s*(?:ROOT )?%(\S+) = [^\n]*?(?:op_name="([^"]*)"|$)', measured.run.as_text(), re.MULTILINE
    )
    return dict(found)


def part_of(scope: str) -> str:
    """Returns which part of an inner step a scope belongs to."""
    if "sample_batch" in scope or "fold_in" in scope:
        return "batch"
    return next((part for part in ("optimizer", "gradient") if part in scope), "loop")


def shares(kernels: Iterable[tuple[str, float]], named: dict[str, str]) -> dict[str, float]:
    """Returns each part's share of the kernels' time."""
    parts: Counter[str] = Counter()
    for name, seconds in kernels:
        if name in named:
            parts[part_of(named[name])] += seconds
        elif name == STARTING:
            parts["start"] += seconds
    return {part: parts[part] / sum(parts.values()) for part in PARTS}


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100, help="Inner steps of each unroll.")
    parser.add_argument("--only", action="append", choices=["adam", *CASES], help="May be repeated.")
    parser.add_argument("--kernels", type=int, default=0, help="Longest kernels to list.")
    options = parser.parse_args()
    print(f"{'microseconds a step':20s} {'all':>7s} " + " ".join(f"{part:>10s}" for part in PARTS))
    for name in options.only or ["adam", "pacer", "adafactor_mlp", "velo-32"]:
        measured = program(name, options.steps)
        seconds = min(measured.seconds(seed) for seed in range(1, REPEATS))
        step = 1e6 * seconds / measured.inner_steps
        kernels, named = kernel_seconds(measured), scopes(measured)
        by_part = shares(kernels.items(), named)
        print(f"{name:20s} {step:7.1f} " + " ".join(f"{step * by_part[p]:10.1f}" for p in PARTS), flush=True)
        longest = Counter({kernel: spent for kernel, spent in kernels.items() if kernel in named})
        for kernel, spent in longest.most_common(options.kernels):
            print(f"    {1e6 * spent / measured.inner_steps:7.2f} {kernel:32s} {named.get(kernel, '')[-90:]}")


if __name__ == "__main__":
    main()
