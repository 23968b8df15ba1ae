"""Curricula over the length of unrolls: VeLO's Fig. 20 on one small network.

    python examples/horizon_curricula.py --out horizons.png

A learned optimizer is to train for T steps. A meta-gradient costs as much as its unrolls are long, and short
ones say something about long ones, too. Three phases that differ in one field, `horizon_limit`: T from the start;
growing along a line; growing along three. Each is given the same number of inner steps, and measured on the same
tasks at T.
Left (Fig. 20a): the horizon by outer step. Right (20b): the meta-loss at T by inner steps spent; thin lines are
seeds.

The paper has T = 2 000 and growth over a thousand outer steps; here it is 200 and forty. The line leads for most of
the way, though its first, very short unrolls teach the wrong thing; horizons that stay short for longer cost the
other curriculum more. In the end two seeds differ as much as the three curricula do.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import digits_cnn
import jax
import numpy as np

from curriculum.events import OuterStepDone, Validated
from curriculum.learner import init_learner
from curriculum.meta_train import meta_train
from curriculum.phase import Phase
from curriculum.phases import get_phase
from curriculum.theta_optimizer import ThetaOptimizerConfig
from curriculum.worker import InProcessWorkerPool
from lopt.architectures import ARCHITECTURES
from lopt.config import derive
from lopt.estimators.full_es import FullEsConfig
from lopt.outer_schedule import PiecewiseLinear
from task_generator.families import MlpConfig
from task_generator.task_config import TaskConfig

ARCHITECTURE = "pacer"
TASK = TaskConfig(
    family=MlpConfig(
        hidden_size=16,
        num_layers=1,
        image_size=8,
        batch_size=32,
        dataset="digits",
        activation="relu",
        initializer="normal",
    )
)


class Curve(NamedTuple):
    """What one run measured, after so many inner steps."""

    inner_steps: np.ndarray
    meta_loss: np.ndarray


def curricula(horizon: int, growth: int) -> dict[str, PiecewiseLinear | None]:
    """Returns the three schedules: growth is over after `growth` outer steps."""
    pieces = (
        (0, horizon / 20),
        (growth // 3, horizon / 10),
        (2 * growth // 3, horizon / 2),
        (growth, horizon),
    )
    return {
        "constant": None,
        "linear": PiecewiseLinear.linear(horizon / 20, horizon, num_steps=growth),
        "piece-wise": PiecewiseLinear(points=pieces),
    }


def phase_with(limit: PiecewiseLinear | None, *, horizon: int, validate_every: int) -> Phase:
    """Returns a phase of unlimited length whose unrolls are `horizon` long once the limit has grown to it."""
    return derive(
        get_phase("short_horizon"),
        name="curriculum_example",
        num_static_configs=1,
        estimator=FullEsConfig(
            sigma=0.03,
            min_horizon=horizon,
            max_horizon=horizon,
            horizon_limit=limit,
            num_tasks=4,
            num_pairs=2,
            num_final_batches=8,
            difference_clip=1.0,
        ),
        theta_optimizer=ThetaOptimizerConfig(
            learning_rate=1e-2, schedule="constant", warm_up=0, gradient_clip=10.0, averaging=0.5
        ),
        outer_steps=100_000,
        validate_every=validate_every,
    )


def run(phase: Phase, *, budget: float, seed: int) -> Curve:
    """Meta-trains until `budget` inner steps are spent; validations cost nothing here."""
    optimizer = ARCHITECTURES[ARCHITECTURE]()
    state = init_learner(phase, optimizer.build().init_theta(jax.random.key(seed)))
    spent, steps, losses = 0.0, [], []
    for event in meta_train(phase, [TASK], optimizer, state, InProcessWorkerPool(), seed=seed):
        if isinstance(event, Validated):
            steps.append(spent)
            losses.append(event.meta_loss)
            if spent >= budget:
                break
        elif isinstance(event, OuterStepDone):
            spent += event.num_inner_steps
    return Curve(np.asarray(steps), np.asarray(losses))


def reached(curves: Sequence[Curve], inner_steps: float) -> np.ndarray:
    """Returns each run's meta-loss at that cost, between measurements by a straight line."""
    return np.asarray([np.interp(inner_steps, curve.inner_steps, curve.meta_loss) for curve in curves])


def compare(*, horizon: int, outer_steps: int, seeds: int, validate_every: int) -> dict[str, list[Curve]]:
    """Returns the curves of every curriculum, one per seed; the constant one makes `outer_steps` steps."""
    results: dict[str, list[Curve]] = {}
    for name, limit in curricula(horizon, outer_steps).items():
        phase = phase_with(limit, horizon=horizon, validate_every=validate_every)
        lanes = 2 * phase.estimator.num_tasks * phase.estimator.num_pairs
        budget = outer_steps * lanes * horizon
        results[name] = [run(phase, budget=budget, seed=seed) for seed in range(seeds)]
    return results


def draw(out: Path, results: dict[str, list[Curve]], *, horizon: int, outer_steps: int) -> None:
    """Draws both panels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(digits_cnn.STYLE)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    for name, limit in curricula(horizon, outer_steps).items():
        shown = 3 * outer_steps // 2
        values = np.full(shown, horizon) if limit is None else limit.values(shown)
        axes[0].plot(np.arange(shown), values, label=name)
    axes[0].set(xlabel="outer step", title="horizon", ylim=(0, 1.05 * horizon))
    axes[0].legend(loc="lower right")
    end = min(curve.inner_steps[-1] for curves in results.values() for curve in curves)
    grid = np.linspace(0.0, end, 100)
    for index, (name, curves) in enumerate(results.items()):
        color = f"C{index}"
        axes[1].plot(grid / 1e6, [reached(curves, at).mean() for at in grid], color=color, label=name)
        for curve in curves:
            axes[1].plot(curve.inner_steps / 1e6, curve.meta_loss, color=color, linewidth=0.6, alpha=0.5)
    axes[1].set(xlabel="million inner steps", title=f"log of the final loss after {horizon} steps")
    axes[1].legend()
    figure.savefig(out, dpi=110)


def main() -> None:
    """Trains, prints what was reached at half and at all of the cost, and draws the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("horizons.png"), help="Picture to draw.")
    parser.add_argument("--horizon", type=int, default=200, help="Inner steps that count, T.")
    parser.add_argument("--outer-steps", type=int, default=40, help="Of the constant curriculum.")
    parser.add_argument("--seeds", type=int, default=2, help="Runs of each curriculum.")
    parser.add_argument("--validate-every", type=int, default=5, help="Outer steps between measurements.")
    options = parser.parse_args()
    sizes = {"horizon": options.horizon, "outer_steps": options.outer_steps}
    results = compare(**sizes, seeds=options.seeds, validate_every=options.validate_every)
    end = min(curve.inner_steps[-1] for curves in results.values() for curve in curves)
    print(
        f"log of the final loss after {options.horizon} steps, mean over {options.seeds} seeds (lowest, highest)"
    )
    for name, curves in results.items():
        halfway, last = reached(curves, end / 2), reached(curves, end)
        print(f"  {name:<11} at half of the cost {_row(halfway)}   at all of it {_row(last)}")
    draw(options.out, results, **sizes)
    print(f"drawn: {options.out}")


def _row(values: np.ndarray) -> str:
    return f"{values.mean():7.3f} ({values.min():.3f}, {values.max():.3f})"


if __name__ == "__main__":
    main()
