"""Evaluations with made-up speed-ups, for what is decided on them, and made-up curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from curriculum.evaluation.curves import CurveBatch, CurveUnit
from curriculum.evaluation.summary import (
    CANDIDATE,
    INITIALISATION,
    EvaluationConfig,
    EvaluationSummary,
    OptimizerResult,
    TaskResult,
)
from curriculum.evaluation.task_normalizer import seed_draws


def made_up_evaluation(
    speedups: Sequence[Sequence[float]],
    *,
    initial: float = 1.0,
    num_held_out: int = 0,
    horizon: int = 200,
    prefix: str = "task",
    factor: int = 10,
) -> EvaluationSummary:
    """Returns an evaluation.

    Args:
      speedups: Of the candidate, [tasks][seeds]; NaN for one that diverged. A task's is their mean, as if losses
        and steps were proportional, and 0 where a seed diverged.
      initial: Of the initialisation, everywhere.
      num_held_out: The last so many tasks are held out.
      horizon: A setting that evaluations may differ in.
      prefix: Of the tasks' names.
      factor: Of the normaliser's length: the cap.
    """
    num_seeds = len(speedups[0])

    def result(name: str, values: Sequence[float]) -> OptimizerResult:
        each = np.asarray(values, float)
        return OptimizerResult(
            optimizer=name,
            final_losses=tuple(float("nan") if np.isnan(value) else 0.1 for value in values),
            speedup=float(np.nan_to_num(each.mean())),
            seed_speedups=tuple(np.nan_to_num(each).tolist()),
            redrawn_speedups=tuple(
                float(np.nan_to_num(each[drawn].mean())) for drawn in seed_draws(num_seeds)
            ),
        )

    tasks = tuple(
        TaskResult(
            task=f"{prefix}{place}",
            held_out=place >= len(speedups) - num_held_out,
            results=(result(CANDIDATE, values), result(INITIALISATION, [initial] * num_seeds)),
        )
        for place, values in enumerate(speedups)
    )
    config = EvaluationConfig(horizon=horizon, num_seeds=num_seeds, normalizer_factor=factor)
    return EvaluationSummary(config=config, tasks=tasks)


def made_up_curves(unit: CurveUnit, settings: Sequence[Any]) -> CurveBatch:
    """Stands in for a unit: losses that fall at a rate of their own for every setting and seed."""
    step = np.arange(unit.num_points) * unit.eval_every
    rates = [float(np.mean([np.mean(leaf) for leaf in jax.tree.leaves(setting)])) for setting in settings]
    slopes = np.asarray([[abs(rate) + 0.01 * seed for seed in unit.seeds] for rate in rates])
    return CurveBatch(step, {"train": np.exp(-slopes[:, :, None] * step)}, 1e-3)
