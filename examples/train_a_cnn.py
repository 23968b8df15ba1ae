"""Train a Flax CNN on handwritten digits with learned optimizers and with tuned Adam, side by side.

    python examples/train_a_cnn.py                                  # pacer, celo2 and velo, as they come
    python examples/train_a_cnn.py --optimizers pacer --steps 1000
    python examples/train_a_cnn.py --weights pacer=mine.npz         # weights that you meta-trained

Every optimizer sees the same initialisations and the same batches. The learned ones are told the number of steps
and nothing else; each is one run per seed. Adam and cosine AdamW are tuned: all rates of the grid are run on all
seeds, and the one with the lowest training loss at the end (its logarithm averaged over the seeds) is shown.

Prints a line per optimizer and a table; draws the learning curves, and how long each tensor's steps are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from digits_cnn import (
    COLORS,
    SMALL,
    Cnn,
    Experiment,
    History,
    Optimizer,
    add_options,
    init_params,
    load,
    new_figure,
    positive,
    start,
    training,
)

import lopt
from lopt.monitoring import tensor_names

LEARNED = ("pacer", "celo2", "velo")
BASELINES = ("adam", "adamw_cosine")
RATES = tuple(rate for rate in lopt.LEARNING_RATE_GRID if 1e-3 <= rate <= 1e-1)


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
    return Contender(name, name, {"-": load(name, args.weights, num_steps=args.steps)})


def tuned(name: str, num_steps: int, rates: Sequence[float]) -> Contender:
    """Returns a baseline at every rate. The rate is kept in the state, so one program serves them all."""
    baseline = lopt.BASELINES[name]
    at = optax.inject_hyperparams(lambda learning_rate: baseline.factory(learning_rate, num_steps))
    return Contender(name, baseline.label, {f"{rate:g}": at(learning_rate=rate) for rate in rates})


def compare(contender: Contender, experiment: Experiment, num_seeds: int) -> Result:
    """Runs every setting on every seed and returns the best."""
    settings = contender.settings
    first = next(iter(settings.values()))
    params = [init_params(experiment.network, seed) for seed in range(num_seeds)]
    began = time.monotonic()
    run = training(first, experiment).lower(params[0], start(first, params[0]), jax.random.key(0)).compile()
    compiled = time.monotonic()
    histories = {
        name: jax.tree.map(
            lambda *leaves: np.stack(leaves),
            *(run(p, start(opt, p), jax.random.key(seed))[2] for seed, p in enumerate(params)),
        )
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


def mean_log(losses: np.ndarray) -> float:
    """Returns the mean logarithm; a run that diverged is the worst there is."""
    return float(np.mean(np.log(np.where(np.isfinite(losses), losses, np.inf))))


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
    print(f"\nAt the end of {num_seeds} runs each: geometric mean of the losses, mean accuracy (lowest, highest)")
    print(f"{'':>18}  {'rate':>6}  tried  train loss  test loss  {'test accuracy':<24}  ms/step")
    for result in results:
        train, test, accuracy = (x[:, -1] for x in result.histories[1:4])
        spread = f"{accuracy.mean():6.1%}  ({accuracy.min():.1%}, {accuracy.max():.1%})"
        print(
            f"{result.label:>18}  {result.setting:>6}  {result.num_tried:5d}  {np.exp(mean_log(train)):10.2e}"
            f"  {np.exp(mean_log(test)):9.3f}  {spread:<24}  {1e3 * result.step_seconds:7.2f}"
        )


def draw(results: Sequence[Result], names: Sequence[str], path: Path) -> None:
    """Draws learning curves above, and below, for each optimizer, the root mean square of each tensor's steps."""
    figure, _ = new_figure(11, 6.6)
    figure.clear()
    upper, lower = figure.subfigures(2, 1, height_ratios=(3, 2))
    draw_curves(upper.subplots(1, 2, sharex=True, sharey=True), results)
    draw_steps(lower.subplots(1, len(results), sharey=True, squeeze=False)[0], results, names)
    figure.savefig(path, dpi=130)


def draw_curves(panels: Any, results: Sequence[Result]) -> None:
    for axes, title, field in zip(
        panels, ("Training loss", "Test loss"), ("train_loss", "test_loss"), strict=True
    ):
        for result, color in zip(results, COLORS, strict=False):
            losses = getattr(result.histories, field)
            mean = np.exp(np.log(losses).mean(axis=0))
            axes.fill_between(
                result.histories.step[0], losses.min(axis=0), losses.max(axis=0), color=color, alpha=0.15
            )
            axes.plot(result.histories.step[0], mean, color=color, label=result.label)
        axes.set(title=title, xlabel="updates", yscale="log")
    panels[0].legend()


def draw_steps(panels: Any, results: Sequence[Result], names: Sequence[str]) -> None:
    layers = list(dict.fromkeys(name.split("/")[0] for name in names))
    for axes, result in zip(panels, results, strict=True):
        steps = result.histories.step_rms.mean(axis=0)
        for column, name in enumerate(names):
            layer, _, kind = name.partition("/")
            axes.plot(
                np.arange(1, len(steps) + 1),
                np.where(steps[:, column] > 0, steps[:, column], np.nan),
                color=COLORS[layers.index(layer) % len(COLORS)],
                linestyle="-" if kind == "kernel" else ":",
                linewidth=1,
                label=layer if kind == "kernel" else None,
            )
        axes.set(title=result.label, xlabel="updates", yscale="log")
    panels[0].set_ylabel("step size, RMS")
    panels[0].legend()


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
    add_options(parser, steps=300, out="train_a_cnn.png")
    args = parser.parse_args(arguments)
    network, rates = Cnn(), RATES
    if args.quick:
        network, args.steps, args.seeds, rates = SMALL, 40, 2, (1e-3, 1e-2)
    experiment = Experiment(network, args.steps, num_points=np.gcd(args.steps, 50).item())
    contenders = [learned(name, args) for name in args.optimizers]
    contenders += [tuned(name, args.steps, rates) for name in args.baselines]
    results = [compare(contender, experiment, args.seeds) for contender in contenders]
    print_table(results, args.seeds)
    draw(results, tensor_names(init_params(network, 0)), args.out)
    print(f"\nCurves: {args.out}")
    return results


if __name__ == "__main__":
    main()
