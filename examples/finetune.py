"""Go on training a half-trained model with a learned optimizer, in every way there is.

    python examples/finetune.py                                # pacer
    python examples/finetune.py --optimizer velo --steps 1000
    python examples/finetune.py --weights pacer=mine.npz       # weights that you meta-trained

A learned optimizer plans for a run of known length, and by its end its steps have shrunk. To go on, its state must
be told how. Two half-trained models, each the outcome of a run of half the steps:

    by the learned optimizer itself    goes on in each of the four ways of `lopt.continue_run`
    by Adam (constant rate 0.01)       the learned optimizer starts afresh on the parameters, or Adam goes on

For reference, one uninterrupted run of all the steps. Every second half has the same batches. Prints a table; draws
the training loss, and how long the steps are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import matplotlib as mpl
import numpy as np
from digits_cnn import (
    COLORS,
    SMALL,
    STYLE,
    Cnn,
    Experiment,
    History,
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
from lopt.use.continuation import Continuation

ADAM_RATE = 0.01
"""The best of the grid in train_a_cnn.py."""
WAYS = get_args(Continuation)
UNINTERRUPTED = "one whole run"


class Halves(NamedTuple):
    """Who made the first half of a run, and how the second came about."""

    first: str
    second: str


def runs_of_seed(name: str, args: argparse.Namespace, experiment: Experiment) -> Any:
    """Returns a function from a seed to the history of every run, by its `Halves`."""
    half, network = experiment.num_steps, experiment.network
    optimizer = lopt.step_size_monitor(load(name, args.weights, num_steps=half))
    whole = lopt.step_size_monitor(load(name, args.weights, num_steps=2 * half))
    adam = lopt.step_size_monitor(lopt.BASELINES["adam"].factory(ADAM_RATE, half))
    # One program for all runs of the learned optimizer: the number of steps is in the state.
    run, run_adam = training(optimizer, experiment), training(adam, experiment)

    def runs(seed: int) -> dict[Halves, History]:
        initial = init_params(network, seed)
        key, second_key = jax.random.split(jax.random.key(seed))
        params, state, first = run(initial, optimizer.init(initial), key)
        done = {}
        for how in WAYS:
            told = lopt.continue_run(optimizer, state, params, num_steps=half, how=how)
            done[Halves(name, how)] = joined(first, run(params, told, second_key)[2])
        params, state, first = run(initial, whole.init(initial), key)
        done[Halves(name, UNINTERRUPTED)] = joined(first, run(params, state, second_key)[2])
        params, state, first = run_adam(initial, adam.init(initial), key)
        done[Halves("adam", "adam")] = joined(first, run_adam(params, state, second_key)[2])
        done[Halves("adam", name)] = joined(first, run(params, optimizer.init(params), second_key)[2])
        return done

    return runs


def joined(first: History, second: History) -> History:
    """Returns the history of a run, given those of its halves."""
    second = second._replace(step=second.step + first.step[-1])
    return jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second)


def print_table(results: dict[Halves, History]) -> None:
    """Prints losses at half-time, at the worst moment afterwards, and at the end."""
    num_seeds, num_points = next(iter(results.values())).train_loss.shape
    half = num_points // 2
    print(
        f"\nMeans of {num_seeds} seeds: training loss at half-time, its highest point afterwards, and the end"
    )
    print(f"{'first half':<11}{'second half':<16}{'half-time':>10}{'highest':>10}{'end':>10}", end="")
    print(f"{'test loss':>11}{'accuracy':>10}")
    for (first, second), history in results.items():
        loss = history.train_loss
        figures = (loss[:, half - 1], loss[:, half:].max(axis=1), loss[:, -1])
        columns = "".join(f"{np.exp(mean_log(x)):10.2e}" for x in figures)
        print(
            f"{first:<11}{second:<16}{columns}{np.exp(mean_log(history.test_loss[:, -1])):11.3f}"
            f"{history.test_accuracy[:, -1].mean():10.1%}"
        )


@mpl.rc_context(STYLE)
def draw(results: dict[Halves, History], name: str, path: Path) -> None:
    """Draws the two ways to be half-trained, and the size of the steps of the learned optimizer."""
    figure = Figure(figsize=(12, 4.4))
    own, after_adam, steps = figure.subplots(1, 3)
    after_adam.sharey(own)
    for axes, first in ((own, name), (after_adam, "adam")):
        seconds = {halves.second: history for halves, history in results.items() if halves.first == first}
        for color, (second, history) in zip(COLORS, seconds.items(), strict=False):
            style = {"color": color, "linestyle": "--" if second == UNINTERRUPTED else "-"}
            draw_halves(axes, history.step[0], geometric_mean(history.train_loss), second, **style)
            if axes is own:
                update = np.arange(1, history.step_rms.shape[1] + 1)
                draw_halves(steps, update, geometric_mean(history.step_rms.mean(axis=2)), second, **style)
        axes.set_title(f"Half-trained by {first}: training loss")
        axes.legend(title="second half", alignment="left")
    steps.set(
        title=f"Half-trained by {name}: steps", ylabel="root mean square of the update, mean over tensors"
    )
    steps.set_ylim(1e-3 * steps.dataLim.ymax, 2 * steps.dataLim.ymax)
    for axes in (own, after_adam, steps):
        axes.set(xlabel="updates", yscale="log")
    figure.savefig(path, dpi=130)


def draw_halves(axes: Axes, x: np.ndarray, y: np.ndarray, label: str, **style: Any) -> None:
    """Draws a run whose first half others share: that half in grey, unless it is one whole run."""
    half = 0 if label == UNINTERRUPTED else len(x) // 2
    axes.plot(x[:half], y[:half], color="#8a94a0")
    axes.plot(x[max(half - 1, 0) :], y[max(half - 1, 0) :], label=label, **style)


def geometric_mean(values: np.ndarray) -> np.ndarray:
    """Returns the geometric mean over the leading axis, the seeds."""
    return np.exp(np.log(np.maximum(values, 1e-12)).mean(axis=0))


def main(arguments: Sequence[str] | None = None) -> dict[Halves, History]:
    """Runs every continuation; returns the histories, each with a leading axis [seeds]."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--optimizer", default="pacer", help="the learned optimizer (default %(default)s)")
    parser.add_argument("--seeds", type=positive, default=3, help="runs of each kind (default %(default)s)")
    add_options(parser, steps=400, out="finetune.png")
    args = parser.parse_args(arguments)
    network = Cnn()
    if args.quick:
        network, args.steps, args.seeds = SMALL, 60, 2
    half = -(-args.steps // 2)
    experiment = Experiment(network, half, num_points=np.gcd(half, 40).item())
    runs = runs_of_seed(args.optimizer, args, experiment)
    of_seeds = []
    for seed in range(args.seeds):
        of_seeds.append(runs(seed))
        print(f"seed {seed}: {len(of_seeds[0])} runs of {2 * half} updates done", flush=True)
    results = {halves: stacked([done[halves] for done in of_seeds]) for halves in of_seeds[0]}
    print_table(results)
    draw(results, args.optimizer, args.out)
    print(f"\nCurves: {args.out}")
    return results


if __name__ == "__main__":
    main()
