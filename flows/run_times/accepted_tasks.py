"""What rejection sampling accepts under several budgets: the data of a plot like VeLO's Fig. 19."""

from __future__ import annotations

import numpy as np

from flows.reporting import AcceptedTasks
from runtime_model.prediction import RuntimeModel
from runtime_model.rejection import SAFETY_QUANTILE, accepts
from task_generator.known_distributions import get_distribution
from task_generator.sampling import sample_task_config

DISTRIBUTION = "phase_one_embedded"
NUM_DRAWS = 400


def accepted_tasks(
    model: RuntimeModel, *, distribution: str = DISTRIBUTION, num_draws: int = NUM_DRAWS
) -> tuple[AcceptedTasks, ...]:
    """Returns the accepted ones of `num_draws` draws for each budget of a distribution."""
    drawn_from = get_distribution(distribution)
    out = []
    for number, budget in enumerate(sorted(drawn_from.budgets, key=lambda budget: budget.seconds)):
        rng = np.random.default_rng(number)
        configs = [sample_task_config(drawn_from, rng, seconds=budget.seconds) for _ in range(num_draws)]
        predicted = model.predict(configs)
        kept = accepts(predicted, budget.seconds, min_valid_probability=0.5, safety_quantile=SAFETY_QUANTILE)
        out.append(
            AcceptedTasks(
                budget_seconds=budget.seconds,
                acceptance_rate=float(kept.mean()),
                families=tuple(c.family.family for c, keep in zip(configs, kept, strict=True) if keep),
                seconds=tuple(predicted.seconds[kept].tolist()),
            )
        )
    return tuple(out)
