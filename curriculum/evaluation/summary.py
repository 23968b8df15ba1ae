"""From learning curves to numbers that can be compared: final losses and speed-ups, per task and overall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from curriculum.evaluation.aggregate import Speedups
from curriculum.evaluation.baseline_budgets import (
    EXTENDED_NORMALIZER,
    TWICE_AS_LONG,
    Trials,
    expand,
    setting_text,
)
from curriculum.evaluation.curves import CurveBatch
from curriculum.evaluation.json_model import JsonModel
from curriculum.evaluation.speedup import tuned_index
from curriculum.evaluation.task_normalizer import TaskNormalizer, fit_task_normalizer
from curriculum.evaluation.twice_as_fast import FACTOR, is_twice_as_fast
from lopt.config import FrozenConfig
from lopt.registry import UnknownNameError
from task_generator.evaluation_task import EvaluationTask

CANDIDATE, INITIALISATION = "candidate", "initialisation"
NormalizerName = Literal["adam", "extended"]
NORMALIZERS: dict[str, tuple[str, ...]] = {"adam": ("adam",), "extended": EXTENDED_NORMALIZER}
POINTS_PER_HORIZON = 20
SPEEDUP_FLOOR = 0.01
"""In geometric means, a run that learned nothing counts as a hundred times slower, not infinitely."""


def points_along(horizon: int, wanted: int) -> int:
    """Returns how many evaluations, equally far apart, end exactly at the horizon: about as many as wanted.

    Raises:
      ValueError: If no number from half to twice as many divides the horizon; names the nearest that one does.
    """

    def divisors(steps: int) -> list[int]:
        if steps <= wanted:
            return [steps]
        return [n for n in range(max(wanted // 2, 1), 2 * wanted + 1) if steps % n == 0]

    if not divisors(horizon):
        others = (horizon + sign * by for by in range(1, horizon) for sign in (-1, 1))
        near = next(steps for steps in others if divisors(steps))
        raise ValueError(
            f"`horizon` must be a multiple of a number from {max(wanted // 2, 1)} to {2 * wanted}, so that curves "
            f"have a point at its end, got {horizon}. Try {near}."
        )
    return min(divisors(horizon), key=lambda n: (abs(n - wanted), -n))


class EvaluationConfig(FrozenConfig):
    """How optimizers are compared."""

    version: Literal[2] = 2
    """Of what a speed-up is: evaluations by another definition are not compared. 2: of the mean loss over seeds."""
    horizon: int = Field(200, ge=2)
    """Inner steps that every optimizer is given."""
    normalizer: NormalizerName = "adam"
    """Whose time counts: "adam", tuned, or "extended", the best of four tuned optimizers (VeLO, F.1)."""
    normalizer_factor: int = Field(10, ge=1)
    """The normalising baselines run this many times longer: the largest speed-up that can be seen."""
    num_seeds: int = Field(3, ge=1)
    points_per_horizon: int = Field(POINTS_PER_HORIZON, ge=1)
    """Evaluations along one horizon, the start not counted: about as many, so that the last is at its end."""
    baselines: tuple[str, ...] = ("quick",)
    """Budgets or baselines to compare with (`curriculum.evaluation.baseline_budgets`); and the normaliser's."""

    @field_validator("baselines")
    @classmethod
    def _check_baselines(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            expand(names)
        except UnknownNameError as error:
            raise ValueError(str(error)) from None  # pydantic collects ValueErrors, not KeyErrors
        return names

    @model_validator(mode="after")
    def _has_points(self) -> Self:
        points_along(self.horizon, self.points_per_horizon)
        return self

    @property
    def trials(self) -> tuple[Trials, ...]:
        """Every baseline that is given the same steps, with its trials, the normaliser's first."""
        return tuple(trials for trials in self.all_trials if trials.baseline not in TWICE_AS_LONG)

    @property
    def trials_twice_as_long(self) -> tuple[Trials, ...]:
        """The baselines that are given twice the steps, and told so."""
        return tuple(trials for trials in self.all_trials if trials.baseline in TWICE_AS_LONG)

    @property
    def all_trials(self) -> tuple[Trials, ...]:
        """Both, in the order in which they were asked for."""
        return expand((*NORMALIZERS[self.normalizer], *self.baselines))

    @property
    def eval_every(self) -> int:
        """Steps between two points of a curve."""
        return self.horizon // self.last_point

    @property
    def last_point(self) -> int:
        """Index of the point at the horizon."""
        return points_along(self.horizon, self.points_per_horizon)

    def num_intervals(self, baseline: str) -> int:
        """Returns how many evaluations a baseline's curve has after its start; a normaliser's runs on."""
        if baseline in TWICE_AS_LONG:
            return self.last_point * FACTOR
        is_normalizer = baseline in NORMALIZERS[self.normalizer]
        return self.last_point * (self.normalizer_factor if is_normalizer else 1)

    def told_steps(self, baseline: str) -> int:
        """Returns how many steps a baseline is told that it has."""
        return self.horizon * (FACTOR if baseline in TWICE_AS_LONG else 1)


class OptimizerResult(JsonModel):
    """One optimizer on one task."""

    optimizer: str
    setting: str = ""
    """The trial that ended lowest, for people; empty for an optimizer with nothing to tune."""
    trial: int = 0
    """Its number."""
    num_trials: int = 1
    final_losses: tuple[float, ...]
    """One per seed; NaN or infinite where it diverged."""
    speedup: float
    """In steps, of the mean of the losses; 0 if that is not finite, or above the start."""
    seed_speedups: tuple[float, ...]
    """Of each seed, over the normaliser with that seed. Their mean is not `speedup`."""
    redrawn_speedups: tuple[float, ...] = ()
    """`speedup` with seeds drawn anew, the normaliser's too (`curriculum.evaluation.task_normalizer`). Empty with
    one seed, and for baselines."""
    is_twice_as_fast: bool | None = None
    """Whether it ended lower than every baseline that had twice the steps; None if there was none."""
    seconds_alone: float | None = None
    """Of one step, training alone (`curriculum.evaluation.step_cost`); None if that was not measured."""


class TaskResult(JsonModel):
    """All optimizers on one task."""

    task: str
    family: str = ""
    held_out: bool | None
    """Whether no phase of the candidate's training could have drawn it; None: not known."""
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


class EvaluationSummary(JsonModel):
    """An evaluation of one candidate: what promotion looks at, and what is kept with the checkpoint."""

    config: EvaluationConfig
    tasks: tuple[TaskResult, ...]

    def geometric_mean_speedup(self, optimizer: str, *, held_out: bool | None = None) -> float:
        """Returns the geometric mean over tasks of the speed-up; NaN if there is no such task.

        Args:
          optimizer: Whose.
          held_out: Only held-out tasks, only the others, or (None) all.
        """
        return geometric_mean(np.asarray([t.result(optimizer).speedup for t in self._chosen(held_out)]))

    def speedups(self, optimizer: str, *, held_out: bool | None = None) -> Speedups:
        """Returns the speed-ups by task, in the order of `tasks`; a task on which a seed diverged has 0.

        Args:
          optimizer: Whose.
          held_out: Only held-out tasks, only the others, or (None) all.
        """
        results = [t.result(optimizer) for t in self._chosen(held_out)]
        losses = np.asarray([r.final_losses for r in results], np.float64)
        return Speedups(
            tasks=np.asarray([r.speedup for r in results], np.float64),
            redrawn=np.asarray([r.redrawn_speedups for r in results], np.float64),
            caps=np.full(len(results), float(self.config.normalizer_factor)),
            finite=np.isfinite(losses.reshape(len(results), self.config.num_seeds)),
        )

    def _chosen(self, held_out: bool | None) -> list[TaskResult]:
        # What is not known to be held out counts as trained on.
        return [t for t in self.tasks if held_out is None or bool(t.held_out) == held_out]

    def clock_speedups(self, optimizer: str) -> Speedups | None:
        """Returns the speed-ups by the clock, over the normaliser's Adam; None if that was not measured."""
        ratios = []
        for task in self.tasks:
            ours, theirs = task.result(optimizer).seconds_alone, task.result("adam").seconds_alone
            if ours is None or theirs is None:
                return None
            ratios.append(theirs / ours)
        return self.speedups(optimizer).times(np.asarray(ratios))

    def diverged(self, optimizer: str) -> tuple[str, ...]:
        """Returns the tasks on which a seed of `optimizer` ended with a loss that is not finite."""
        return tuple(t.task for t in self.tasks if not np.all(np.isfinite(t.result(optimizer).final_losses)))


def geometric_mean(speedups: np.ndarray) -> float:
    """Returns the geometric mean over tasks [T]; NaN if there is none."""
    if not len(speedups):
        return float("nan")
    return float(np.exp(np.mean(np.log(np.maximum(speedups, SPEEDUP_FLOOR)))))


def summarize_task(
    config: EvaluationConfig,
    task: EvaluationTask,
    *,
    held_out: bool | None,
    learned: Mapping[str, np.ndarray],
    baselines: Mapping[str, CurveBatch],
) -> TaskResult:
    """Returns the results of one task, every baseline with the trial that ended lowest.

    Args:
      config: How the curves were made.
      task: Which.
      held_out: Whether no phase of the candidate's training could have sampled it.
      learned: Training-loss curves [S, P] of learned optimizers by name, P up to the horizon.
      baselines: Curves of `config.trials` and `config.trials_twice_as_long` by baseline.

    Raises:
      ValueError: If one of the normaliser's baselines is missing.
    """
    normalizer, point = task_normalizer(config, baselines), config.last_point

    def result(name: str, final: np.ndarray, **more: Any) -> OptimizerResult:
        return OptimizerResult(
            optimizer=name,
            final_losses=tuple(map(float, final)),
            speedup=float(normalizer.speedup(final)),
            seed_speedups=tuple(map(float, normalizer.by_seed(final))),
            **more,
        )

    doubled = [baselines[t.baseline].losses["train"][:, :, -1] for t in config.trials_twice_as_long]
    results = []
    for name, curves in learned.items():
        final = np.asarray(curves)[:, point]
        redrawn = tuple(map(float, normalizer.redrawn(final[None])))
        twice = is_twice_as_fast(final, np.concatenate(doubled)) if doubled else None
        results.append(result(name, final, redrawn_speedups=redrawn, is_twice_as_fast=twice))
    for trials in config.trials:
        batch = baselines[trials.baseline]
        best = tuned_index(batch.losses["train"], point)
        results.append(
            result(
                trials.baseline,
                batch.losses["train"][best, :, point],
                setting=setting_text(trials, best),
                trial=best,
                num_trials=trials.num_trials,
            )
        )
    return TaskResult(
        task=task.name, family=task.config.family.family, held_out=held_out, results=tuple(results)
    )


def task_normalizer(config: EvaluationConfig, baselines: Mapping[str, CurveBatch]) -> TaskNormalizer:
    """Returns one task's normaliser: the envelopes of its baselines' curves, all trials together.

    Raises:
      ValueError: If one of them is missing.
    """
    names = NORMALIZERS[config.normalizer]
    if missing := [name for name in names if name not in baselines]:
        raise ValueError(f"normalising baselines are missing: {missing}, got {sorted(baselines)}")
    curves = np.concatenate([baselines[name].losses["train"] for name in names])
    return fit_task_normalizer(baselines[names[0]].step, curves, config.horizon)


def summarize(config: EvaluationConfig, tasks: Sequence[TaskResult]) -> EvaluationSummary:
    """Returns the evaluation over `tasks`."""
    return EvaluationSummary(config=config, tasks=tuple(tasks))
