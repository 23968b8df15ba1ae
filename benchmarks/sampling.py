"""How long drawing task configurations takes: sampled, validated and fingerprinted, on one core.

python benchmarks/sampling.py [--distributions phase_one,phase_two] [--count 10000]
"""

from __future__ import annotations

import argparse
import time

from task_generator import DISTRIBUTIONS, sample_task_configs


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--distributions", default=",".join(DISTRIBUTIONS), help="names, separated by commas")
    parser.add_argument("--count", type=int, default=10_000, help="configurations per distribution")
    options = parser.parse_args()
    names = options.distributions.split(",")
    if unknown := [name for name in names if name not in DISTRIBUTIONS]:
        parser.error(f"unknown distributions {', '.join(unknown)}; known: {', '.join(DISTRIBUTIONS)}")
    print(f"{'distribution':22s}{'seconds':>9s}{'CPU s':>8s}{'distinct':>10s}")
    for name in names:
        wall, cpu = time.perf_counter(), time.process_time()
        configs = sample_task_configs(DISTRIBUTIONS[name], seed=0, count=options.count)
        distinct = len({config.fingerprint() for config in configs})
        print(
            f"{name:22s}{time.perf_counter() - wall:9.2f}{time.process_time() - cpu:8.2f}{distinct:10,d}",
            flush=True,
        )


if __name__ == "__main__":
    main()
