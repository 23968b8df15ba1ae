"""Which tasks a phase holds: drawn from its distribution, kept if predicted to be valid and fast enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from curriculum.phase import Phase
from runtime_model.prediction import Prediction
from runtime_model.rejection import rejection_sample
from task_generator.known_distributions import get_distribution
from task_generator.sampling import sample_task_config
from task_generator.task_config import TaskConfig

MAX_REDRAWS = 10_000


def sample_phase_tasks(
    phase: Phase, predict: Callable[[Sequence[TaskConfig]], Prediction], *, seed: int
) -> tuple[TaskConfig, ...]:
    """Returns the phase's static configurations; number i depends on (seed, i) alone.

    Args:
      phase: Its distribution, thresholds and number of configurations.
      predict: A run-time model's `predict`.
      seed: Of the phase.

    Raises:
      BudgetUnreachableError: If no drawn configuration is predicted to run within the drawn budget.
      ValueError: If the distribution hardly ever draws networks of the phase's size, or all it has is held out.
    """
    return tuple(draw_phase_task(phase, predict, seed, index) for index in range(phase.num_static_configs))


def draw_phase_task(
    phase: Phase, predict: Callable[[Sequence[TaskConfig]], Prediction], seed: int, index: int
) -> TaskConfig:
    """Returns static configuration number `index`; arguments and errors are those of `sample_phase_tasks`.

    A distribution of whole configurations gives those that are not held out in turn, whatever they are predicted to
    cost: they are meant.
    """
    distribution = get_distribution(phase.distribution)
    if distribution.tasks:
        whole = phase.whole_tasks()
        return whole[index % len(whole)]

    def sample(rng: np.random.Generator, seconds: float) -> TaskConfig:
        for _ in range(MAX_REDRAWS):
            config = sample_task_config(distribution, rng, seconds=seconds)
            fits = phase.min_num_params <= config.approximate_cost()["num_params"] <= phase.max_num_params
            if fits and phase.held_out.reason(config) is None:
                return config
        raise ValueError(
            f"none of {MAX_REDRAWS} configurations of {distribution.name!r} has between {phase.min_num_params} "
            f"and {phase.max_num_params} parameters and is not held out. Widen `min_num_params` and "
            f"`max_num_params` of phase {phase.name!r}, or narrow its `held_out`."
        )

    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    seconds = phase.problem_size.sample(rng)  # first of all: it decides which families are offered
    return rejection_sample(
        partial(sample, seconds=seconds),
        predict,
        rng,
        budget_seconds=seconds,
        min_valid_probability=phase.min_valid_probability,
        safety_quantile=phase.safety_quantile,
    )
