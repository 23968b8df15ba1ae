"""From learning curves to numbers that can be compared: final losses and speed-ups, per task and overall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import ConfigDict, Field, field_validator

from curriculum.curves import CurveBatch
from curriculum.speedup import fit_normalizer, tuned_index
from lopt.baselines import BASELINES, LEARNING_RATE_GRID
from lopt.config import FrozenConfig
from lopt.registry import UnknownNameError, lookup

CANDIDATE, INITIALISATION, NORMALIZER = "candidate", "initialisation", "adam"
SPEEDUP_FLOOR = 0.01
"""In geometric means, a run that learned nothing counts as a hundred times slower, not infinitely."""


class EvaluationConfig(FrozenConfig):
    """How optimizers are compared."""

    horizon: int = Field(200, ge=2)
    """Inner steps that every optimizer is given."""
    normalizer_factor: int = Field(5, ge=1)
    """The normalising baseline runs this many times longer: the largest speed-up that can be seen."""
    num_seeds: int = Field(3, ge=1)
    points_per_horizon: int = Field(20, ge=1)
    """Evaluations along one horizon, the start not counted."""
    learning_rates: tuple[float, ...] = LEARNING_RATE_GRID
    baselines: tuple[str, ...] = (NORMALIZER, "adamw_cosine")
    """What to compare with, each tuned over `learning_rates`; the normaliser is one of them."""

    @field_validator("baselines")
    @classmethod
    def _check_baselines(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            try:
                space = lookup(BASELINES, name, kind="baseline").search_space
            except UnknownNameError as error:
                raise ValueError(str(error)) from None  # pydantic collects ValueErrors, not KeyErrors
            if space.kind != "grid":
                raise ValueError(
                    f"`baselines` are tuned over learning rates; {name!r} is not (its search space: {space.kind})"
                )
        if NORMALIZER not in names:
            raise ValueError(f"`baselines` must contain {NORMALIZER!r}, the normaliser, got {names}")
        return names

    @property
    def eval_every(self) -> int:
        """Steps between two points of a curve."""
        return max(self.horizon // self.points_per_horizon, 1)


class OptimizerResult(FrozenConfig):
    """One optimizer on one task; one entry per seed. NaN says that the seed diverged."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    optimizer: str
    learning_rate: float | None = None
    """The tuned rate; None for a learned optimizer, which has none."""
    final_losses: tuple[float, ...]
    speedups: tuple[float, ...]
    """Over tuned Adam, in steps."""


class TaskResult(FrozenConfig):
    """All optimizers on one task."""

    task: str
    held_out: bool
    results: tuple[OptimizerResult, ...]

    def result(self, optimizer: str) -> OptimizerResult:
        """Returns the result of `optimizer`.

        Raises:
          KeyError: If it was not evaluated on this task.
        """
        for result in self.results:
            if result.optimizer == optimizer:
                return result
        raise KeyError(f"no result of {optimizer!r} on task {self.task!r}")


class EvaluationSummary(FrozenConfig):
    """An evaluation of one candidate: what promotion looks at, and what is kept with the checkpoint."""

    config: EvaluationConfig
    tasks: tuple[TaskResult, ...]

    def geometric_mean_speedup(self, optimizer: str, *, held_out: bool | None = None) -> float:
        """Returns the geometric mean over tasks (of the mean over seeds); NaN if there is no such task.

        Args:
          optimizer: Whose.
          held_out: Only held-out tasks, only the others, or (None) all.
        """
        chosen = [t for t in self.tasks if held_out is None or t.held_out == held_out]
        per_task = [float(np.mean(np.nan_to_num(t.result(optimizer).speedups))) for t in chosen]
        if not per_task:
            return float("nan")
        return float(np.exp(np.mean(np.log(np.maximum(per_task, SPEEDUP_FLOOR)))))

    def scores(self, optimizer: str, *, held_out: bool | None = None) -> np.ndarray:
        """Returns the speed-ups [tasks, seeds] for `curriculum.aggregate`; a run that diverged has 0.

        Args:
          optimizer: Whose.
          held_out: Only held-out tasks, only the others, or (None) all.
        """
        chosen = [t for t in self.tasks if held_out is None or t.held_out == held_out]
        rows = [np.nan_to_num(t.result(optimizer).speedups) for t in chosen]
        return np.asarray(rows, np.float64).reshape(len(rows), self.config.num_seeds)

    def diverged(self, optimizer: str) -> tuple[str, ...]:
        """Returns the tasks on which a seed of `optimizer` ended with a loss that is not finite."""
        return tuple(t.task for t in self.tasks if not np.all(np.isfinite(t.result(optimizer).final_losses)))


def summarize_task(
    config: EvaluationConfig,
    task: str,
    *,
    held_out: bool,
    learned: Mapping[str, np.ndarray],
    baselines: Mapping[str, CurveBatch],
) -> TaskResult:
    """Returns the results of one task.

    Args:
      config: How the curves were made.
      task: The task's name.
      held_out: Whether no phase could have sampled it.
      learned: Training-loss curves [S, P] of learned optimizers by name, P up to the horizon.
      baselines: Curves by name over `config.learning_rates`; "adam" must be among them and is the normaliser.

    Raises:
      ValueError: If "adam" is missing.
    """
    if NORMALIZER not in baselines:
        raise ValueError(f"the normalising baseline {NORMALIZER!r} is missing, got {sorted(baselines)}")
    adam = baselines[NORMALIZER]
    normalizer = fit_normalizer(adam.step, adam.losses["train"])
    point = config.horizon // config.eval_every

    def result(name: str, final: np.ndarray, rate: float | None) -> OptimizerResult:
        speedups = normalizer.speedup(final, config.horizon)
        return OptimizerResult(
            optimizer=name,
            learning_rate=rate,
            final_losses=tuple(float(x) for x in final),
            speedups=tuple(float(x) for x in speedups),
        )

    results = [result(name, np.asarray(curves)[:, point], None) for name, curves in learned.items()]
    for name, batch in baselines.items():
        best = tuned_index(batch.losses["train"], point)
        results.append(result(name, batch.losses["train"][best, :, point], config.learning_rates[best]))
    return TaskResult(task=task, held_out=held_out, results=tuple(results))


def summarize(config: EvaluationConfig, tasks: Sequence[TaskResult]) -> EvaluationSummary:
    """Returns the evaluation over `tasks`."""
    return EvaluationSummary(config=config, tasks=tuple(tasks))
