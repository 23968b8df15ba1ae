"""What one optimizer update costs: time per parameter, fixed overhead, compile time, temporary memory.

    python benchmarks/update.py [--json PATH] [--plot PATH] [--optimizers velo,celo2] [--repeats 30]

Prints a table per case, `optax.adam` first: nanoseconds per parameter with the ratio to Adam, timed in turns in one
process so that all see the same load; compile seconds; temporary bytes per parameter and optimizer state bytes per
parameter; kernels launched. Theta is an argument of every timed program. `--plot` also measures three square
matrices from 8×8 to 1024×1024, fits time = λ_overhead + λ_params · parameters (VeLO, Eq. 3) and draws it.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax

from curriculum.probes.update_cost import fit_costs
from lopt.architectures import ARCHITECTURES

Shapes = tuple[tuple[int, ...], ...]
LAMBDA_SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)


def transformer_shapes(width: int = 192, layers: int = 6, vocabulary: int = 64) -> Shapes:
    """Returns the 75 tensors, 2.7 million parameters, of a small decoder: per layer two norms, attention, MLP."""
    layer = (
        *((width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,)),
        *((width,), (width,), (width, 4 * width), (4 * width,), (4 * width, width), (width,)),
    )
    return ((vocabulary, width), (width,), (width,), *(layer * layers))


CASES: dict[str, Shapes] = {
    "3 x 32x32": ((32, 32),) * 3,
    "3 x 128x128": ((128, 128),) * 3,
    "3 x 512x512": ((512, 512),) * 3,
    "transformer": transformer_shapes(),
}


class Program(NamedTuple):
    """One compiled update and what compiling it showed."""

    run: Callable[[], Any]
    compile_seconds: float
    temp_bytes: int
    state_bytes: int
    num_kernels: int


def optimizers(
    names: list[str],
) -> dict[str, tuple[Any, Callable[[Any], optax.GradientTransformationExtraArgs]]]:
    """Returns name → (theta, theta → transformation), Adam first."""
    adam = optax.with_extra_args_support(optax.adam(1e-3))
    found: dict[str, Any] = {"optax.adam": ((), lambda theta: adam)}
    for name in names:
        learned = ARCHITECTURES[name]().build()
        theta = learned.init_theta(jax.random.key(0))
        found[name] = (theta, lambda theta, learned=learned: learned.transform(theta, num_steps=1_000))
    return found


def compile_update(theta: Any, make: Callable[[Any], Any], params: Any) -> Program:
    """Compiles one update with theta, gradients, state and parameters as arguments."""
    grads = jax.tree.map(lambda p: 0.1 * p + 0.01, params)

    def update(theta: Any, grads: Any, state: Any, params: Any) -> Any:
        return make(theta).update(grads, state, params, value=jnp.float32(1.0))

    state = jax.jit(lambda theta, params: make(theta).init(params))(theta, params)
    start = time.perf_counter()
    compiled = jax.jit(update).lower(theta, grads, state, params).compile()
    seconds = time.perf_counter() - start
    arguments = (theta, grads, state, params)
    jax.block_until_ready(compiled(*arguments))
    return Program(
        run=lambda: jax.block_until_ready(compiled(*arguments)),
        compile_seconds=seconds,
        temp_bytes=compiled.memory_analysis().temp_size_in_bytes,
        state_bytes=sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
        num_kernels=count_kernels(compiled.as_text()),
    )


def count_kernels(text: str) -> int:
    """Returns how many kernels a compiled program launches: its instructions that compute, fused ones once."""
    compute = (
        r" = .* (fusion|dot|convolution|custom-call|reduce|concatenate|copy|sort|while|conditional|gather)\("
    )
    bodies = [
        block for block in text.split("\n\n") if "fused_computation" not in block.lstrip().partition("\n")[0]
    ]
    return sum(bool(re.search(compute, line)) for block in bodies for line in block.splitlines())


def time_in_turns(programs: dict[str, Program], repeats: int) -> dict[str, float]:
    """Returns the median seconds of each program, run one after the other, `repeats` times around."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            start = time.perf_counter()
            program.run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def make_params(shapes: Shapes) -> Any:
    """Returns normal parameters of the given shapes."""
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return {
        f"w{i:03d}": 0.1 * jax.random.normal(k, s) for i, (k, s) in enumerate(zip(keys, shapes, strict=True))
    }


def measure_case(shapes: Shapes, names: list[str], repeats: int) -> list[dict[str, Any]]:
    """Returns one row per optimizer."""
    params = make_params(shapes)
    size = sum(p.size for p in params.values())
    programs = {
        name: compile_update(theta, make, params) for name, (theta, make) in optimizers(names).items()
    }
    medians = time_in_turns(programs, repeats)
    return [
        {
            "optimizer": name,
            "ns_per_parameter": 1e9 * medians[name] / size,
            "times_adam": medians[name] / medians["optax.adam"],
            "milliseconds": 1e3 * medians[name],
            "compile_seconds": program.compile_seconds,
            "temp_bytes_per_parameter": program.temp_bytes / size,
            "state_bytes_per_parameter": program.state_bytes / size,
            "kernels": program.num_kernels,
        }
        for name, program in programs.items()
    ]


def measure_scaling(names: list[str], repeats: int) -> dict[str, dict[str, Any]]:
    """Returns, per optimizer, the times over `LAMBDA_SIZES` and the two fitted costs of VeLO's Eq. 3."""
    seconds: dict[str, list[float]] = {}
    for side in LAMBDA_SIZES:
        params = make_params(((side, side),) * 3)
        programs = {n: compile_update(theta, make, params) for n, (theta, make) in optimizers(names).items()}
        for name, median in time_in_turns(programs, repeats).items():
            seconds.setdefault(name, []).append(median)
    sizes = 3.0 * np.square(np.asarray(LAMBDA_SIZES, np.float64))
    return {name: described_fit(sizes, np.asarray(times)) for name, times in seconds.items()}


def described_fit(sizes: np.ndarray, seconds: np.ndarray) -> dict[str, Any]:
    """Returns the measured times and the two costs fitted to them."""
    fit = fit_costs(sizes, seconds)
    return {
        "parameters": sizes.tolist(),
        "seconds": seconds.tolist(),
        "overhead_seconds": fit.overhead,
        "seconds_per_parameter": fit.per_parameter,
    }


def draw_scaling(scaling: dict[str, dict[str, Any]], path: Path) -> None:
    """Draws measured times (dots) and the fitted model (lines), like VeLO's Fig. 18."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    for i, (name, fit) in enumerate(scaling.items()):
        sizes = np.asarray(fit["parameters"])
        color = "black" if name == "optax.adam" else plt.get_cmap("tab20")(i % 20)
        overhead, slope = 1e6 * fit["overhead_seconds"], 1e9 * fit["seconds_per_parameter"]
        label = f"{name}: {overhead:.0f} µs + {slope:.2g} ns/parameter"
        axes.plot(
            sizes, fit["overhead_seconds"] + fit["seconds_per_parameter"] * sizes, color=color, label=label
        )
        axes.plot(sizes, fit["seconds"], "o", color=color, markersize=3)
    axes.set(
        xscale="log", yscale="log", xlabel="parameters (three square matrices)", ylabel="seconds per update"
    )
    axes.set_title(f"Cost of one update: λ_overhead + λ_params · parameters ({jax.devices()[0].device_kind})")
    axes.legend(fontsize=7, loc="upper left", frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def print_case(case: str, rows: list[dict[str, Any]]) -> None:
    """Prints one case as a table."""
    print(f"\n{case}\n{'':22s}{'ns/param':>10s}{'x Adam':>8s}{'ms':>9s}{'compile s':>11s}{'temp B/p':>10s}"
          f"{'state B/p':>11s}{'kernels':>9s}")  # fmt: skip
    for row in rows:
        print(
            f"{row['optimizer']:22s}{row['ns_per_parameter']:10.1f}{row['times_adam']:8.1f}{row['milliseconds']:9.3f}"
            f"{row['compile_seconds']:11.2f}{row['temp_bytes_per_parameter']:10.1f}"
            f"{row['state_bytes_per_parameter']:11.1f}{row['kernels']:9d}",
            flush=True,
        )


def main() -> None:
    """Measures, prints, and writes what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument(
        "--plot", type=Path, help="also fit λ_overhead and λ_params, and draw them here (PNG)"
    )
    parser.add_argument(
        "--optimizers", default=",".join(sorted(ARCHITECTURES)), help="names, separated by commas"
    )
    parser.add_argument("--cases", default=",".join(CASES), help=f"of: {', '.join(CASES)}")
    parser.add_argument("--repeats", type=int, default=30, help="rounds; the median is reported")
    options = parser.parse_args()
    names = options.optimizers.split(",")
    unknown = [f"optimizer {n!r}" for n in names if n not in ARCHITECTURES]
    unknown += [f"case {c!r}" for c in options.cases.split(",") if c not in CASES]
    if unknown:
        parser.error(
            f"unknown {', '.join(unknown)}; optimizers: {', '.join(ARCHITECTURES)}; cases: {', '.join(CASES)}"
        )
    result: dict[str, Any] = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "cases": {}}
    for case in options.cases.split(","):
        result["cases"][case] = measure_case(CASES[case], names, options.repeats)
        print_case(case, result["cases"][case])
    if options.plot is not None:
        result["scaling"] = measure_scaling(names, options.repeats)
        draw_scaling(result["scaling"], options.plot)
        print(f"\nλ_overhead and λ_params: {options.plot}")
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
