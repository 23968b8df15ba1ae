"""Train a Flax CNN on handwritten digits with learned optimizers and with tuned Adam, side by side.

    python examples/train_a_cnn.py                                  # pacer, celo2 and velo, as they come
    python examples/train_a_cnn.py --optimizers pacer --steps 1000
    python examples/train_a_cnn.py --weights pacer=mine.npz         # weights that you meta-trained

Every optimizer sees the same initialisations and the same batches. The learned ones are told the number of steps
and nothing else; each is one run per seed. Adam and cosine AdamW are tuned: all rates of the grid are run on all
seeds, and the one with the lowest training loss at the end (its logarithm averaged over the seeds) is shown.

The weights that come with the package were meta-trained in minutes, on runs of up to 120 updates (velo), 200
(celo2) and 300 (pacer). They are for trying things out; in longer runs they can fail, and velo's do at 300 updates.

Prints a line per optimizer and a table; draws the learning curves, and how long each tensor's steps are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import jax
import matplotlib as mpl
import numpy as np
import optax
from digits_cnn import (
    COLORS,
    SMALL,
    STYLE,
    Cnn,
    Experiment,
    History,
    Optimizer,
    add_options,
    init_params,
    load,
    mean_log,
    positive,
    stacked,
    training,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import lopt
from lopt.use.monitoring import tensor_names

LEARNED = ("pacer", "celo2", "velo")
BASELINES = ("adam", "adamw_cosine")
RATES = tuple(rate for rate in lopt.LEARNING_RATE_GRID if 1e-3 <= rate <= 1e-1)

LAYERS = ("#111827", "#b45309", "#0e7490", "#7c3aed", "#be123c")


class Contender(NamedTuple):
    """An optimizer, once per setting that was tried: the settings differ in their state only."""

    name: str
    label: str
    settings: dict[str, Optimizer]


class Result(NamedTuple):
    """How the best setting did."""

    label: str
    setting: str
    num_tried: int
    histories: History  # with a leading axis [seeds]
    compile_seconds: float
    step_seconds: float


def learned(name: str, args: argparse.Namespace) -> Contender:
    """Returns a learned optimizer: no setting to try."""
    optimizer = load(name, args.weights, num_steps=args.steps)
    return Contender(name, name, {"-": lopt.step_size_monitor(optimizer)})


def tuned(name: str, num_steps: int, rates: Sequence[float]) -> Contender:
    """Returns a baseline at every rate. The rate is kept in the state, so one program serves them all."""
    baseline = lopt.BASELINES[name]
    at = optax.inject_hyperparams(lambda learning_rate: baseline.factory(learning_rate, num_steps))
    settings = {f"{rate:g}": lopt.step_size_monitor(at(learning_rate=rate)) for rate in rates}
    return Contender(name, baseline.label, settings)


def compare(contender: Contender, experiment: Experiment, num_seeds: int) -> Result:
    """Runs every setting on every seed and returns the best."""
    settings = contender.settings
    first = next(iter(settings.values()))
    params = [init_params(experiment.network, seed) for seed in range(num_seeds)]
    began = time.monotonic()
    run = training(first, experiment).lower(params[0], first.init(params[0]), jax.random.key(0)).compile()
    compiled = time.monotonic()
    histories = {
        name: stacked([run(p, opt.init(p), jax.random.key(seed))[2] for seed, p in enumerate(params)])
        for name, opt in settings.items()
    }
    num_steps = len(settings) * num_seeds * experiment.num_steps
    best = min(histories, key=lambda name: mean_log(histories[name].train_loss[:, -1]))
    result = Result(
        contender.label,
        best,
        len(settings),
        histories[best],
        compiled - began,
        (time.monotonic() - compiled) / num_steps,
    )
    report(result)
    return result


def report(result: Result) -> None:
    """Prints one line."""
    loss, accuracy = result.histories.train_loss[:, -1], result.histories.test_accuracy[:, -1]
    print(
        f"{result.label:>18}: train loss {np.exp(mean_log(loss)):.2e}, test accuracy {accuracy.mean():.1%}   "
        f"(compiled in {result.compile_seconds:.1f} s, {1e3 * result.step_seconds:.2f} ms per step)",
        flush=True,
    )


def print_table(results: Sequence[Result], num_seeds: int) -> None:
    """Prints the figures at the end of the runs."""
    print(
        f"\nAt the end of {num_seeds} runs each: geometric mean of the losses, mean accuracy (lowest, highest)"
    )
    print(f"{'':>18}  {'rate':>6}  tried  train loss  test loss  {'test accuracy':<24}  ms/step")
    for result in results:
        train, test, accuracy = (x[:, -1] for x in result.histories[1:4])
        spread = f"{accuracy.mean():6.1%}  ({accuracy.min():.1%}, {accuracy.max():.1%})"
        print(
            f"{result.label:>18}  {result.setting:>6}  {result.num_tried:5d}  {np.exp(mean_log(train)):10.2e}"
            f"  {np.exp(mean_log(test)):9.3f}  {spread:<24}  {1e3 * result.step_seconds:7.2f}"
        )


@mpl.rc_context(STYLE)
def draw(results: Sequence[Result], names: Sequence[str], path: Path) -> None:
    """Draws learning curves above, and below, for each optimizer, the root mean square of each tensor's steps."""
    figure = Figure(figsize=(11, 6.8))
    upper, lower = figure.subfigures(2, 1, height_ratios=(3, 2))
    panels = upper.subplots(1, 2, sharex=True, sharey=True)
    for axes, title, field in zip(
        panels, ("Training loss", "Test loss"), ("train_loss", "test_loss"), strict=True
    ):
        for result, color in zip(results, cycle(COLORS), strict=False):
            steps, losses = result.histories.step[0], getattr(result.histories, field)
            axes.fill_between(steps, losses.min(axis=0), losses.max(axis=0), color=color, alpha=0.12, lw=0)
            axes.plot(steps, np.exp(np.log(losses).mean(axis=0)), color=color, label=result.label)
        axes.set(
            title=f"{title}: mean of {len(losses)} seeds, and their range", xlabel="updates", yscale="log"
        )
    panels[0].legend()
    draw_steps(lower.subplots(1, len(results), sharey=True, squeeze=False)[0], results, names)
    figure.savefig(path, dpi=130)


def draw_steps(panels: Sequence[Axes], results: Sequence[Result], names: Sequence[str]) -> None:
    """Draws one line per tensor: kernels solid, biases dotted."""
    layers = list(dict.fromkeys(name.split("/")[0] for name in names))
    largest = max(result.histories.step_rms.max() for result in results)
    for axes, result in zip(panels, results, strict=True):
        steps = result.histories.step_rms.mean(axis=0)
        for column, name in enumerate(names):
            layer, _, kind = name.partition("/")
            is_kernel = kind == "kernel"
            axes.plot(
                np.arange(1, len(steps) + 1),
                steps[:, column],
                color=LAYERS[layers.index(layer) % len(LAYERS)],
                linestyle="-" if is_kernel else ":",
                linewidth=1.2,
                label=f"{layer} (dotted: its bias)" if is_kernel else None,
            )
        axes.set(title=f"{result.label}: steps", xlabel="updates", yscale="log")
        axes.set_ylim(1e-4 * largest, 2 * largest)
    panels[0].set_ylabel("root mean square of the update")
    panels[0].legend(loc="lower left")


def main(arguments: Sequence[str] | None = None) -> list[Result]:
    """Compares the optimizers; returns what the table shows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--optimizers", nargs="*", default=LEARNED, help="learned optimizers (default: pacer celo2 velo)"
    )
    parser.add_argument(
        "--baselines",
        nargs="*",
        default=BASELINES,
        choices=sorted(name for name, b in lopt.BASELINES.items() if b.search_space.kind == "grid"),
        metavar="NAME",
        help="tuned baselines, by their names in `lopt.BASELINES` (default: adam adamw_cosine)",
    )
    parser.add_argument("--seeds", type=positive, default=3, help="runs per setting (default %(default)s)")
    add_options(parser, steps=120, out="train_a_cnn.png")
    args = parser.parse_args(arguments)
    network, rates = Cnn(), RATES
    if args.quick:
        network, args.steps, args.seeds, rates = SMALL, 40, 2, (1e-3, 1e-2)
    experiment = Experiment(network, args.steps, num_points=np.gcd(args.steps, 60).item())
    contenders = [learned(name, args) for name in args.optimizers]
    contenders += [tuned(name, args.steps, rates) for name in args.baselines]
    results = [compare(contender, experiment, args.seeds) for contender in contenders]
    print_table(results, args.seeds)
    draw(results, tensor_names(init_params(network, 0)), args.out)
    print(f"\nCurves: {args.out}")
    return results


if __name__ == "__main__":
    main()
