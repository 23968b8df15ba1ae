"""Synchronous outer steps on two Dask workers, with and without second homes for programs.

    python benchmarks/second_homes.py [--outer-steps 60] [--skip 20]

The four tasks of the curriculum `four_small`, whose horizons are drawn anew in every outer step, so that no way of
giving each program one worker is balanced for long (`flows/workers/placement.py`). Both ways compute the same
numbers, which is checked. The first outer steps, in which programs are compiled, are left out. The learner waits
for all units of an outer step, so what workers lose to one another is the difference of the two.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from curriculum.events import OuterStepDone
from curriculum.learner import init_learner
from curriculum.meta_train import meta_train
from curriculum.phases.four_small import FOUR_SMALL_TASKS
from flows.settings import RuntimeSettings
from flows.workers import placement
from flows.workers.pool import DaskWorkerPool
from lopt.architectures import ARCHITECTURES
from lopt.config import derive


def seconds_and_losses(home: Path, outer_steps: int, *, patience: float) -> tuple[list[float], list[float]]:
    """Returns every outer step's wall seconds and meta-loss."""
    placement.PATIENCE = patience
    config = ARCHITECTURES["adafactor_mlp"].model_validate({})
    phase = derive(FOUR_SMALL_TASKS, outer_steps=outer_steps, validate_every=10_000, checkpoint_every=10_000)
    tasks = phase.whole_tasks()
    state = init_learner(phase, config.build().init_theta(jax.random.key(0)))
    state = state._replace(best_validation=np.float32(0.0))  # no validation at the start
    seconds, losses = [], []
    with DaskWorkerPool.open(RuntimeSettings(home=home, num_workers=2)) as pool:
        before = time.perf_counter()
        events = meta_train(phase, tasks, config, state, pool, seed=0, task_seconds=[1e-3] * len(tasks))
        for event in events:
            if isinstance(event, OuterStepDone):
                now = time.perf_counter()
                seconds.append(now - before)
                losses.append(event.meta_loss)
                before = now
    return seconds, losses


def main() -> None:
    """Prints the seconds of an outer step both ways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--outer-steps", type=int, default=60)
    parser.add_argument("--skip", type=int, default=20, help="First outer steps that do not count.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, patience in (("one home each", math.inf), ("second homes", placement.PATIENCE)):
            seconds, losses = seconds_and_losses(Path(folder), options.outer_steps, patience=patience)
            counted = seconds[options.skip :]
            found[name] = counted, losses
            print(
                f"{name:14s} {statistics.mean(counted):6.3f} s an outer step, mean of {len(counted)}",
                flush=True,
            )
    (one, one_losses), (more, more_losses) = found.values()
    print(f"{sum(one) / sum(more):.2f} times as fast; losses equal: {one_losses == more_losses}")


if __name__ == "__main__":
    main()
