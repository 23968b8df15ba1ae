"""The demo's second phase: larger tasks and longer unrolls, from the first phase's promoted checkpoint.

    keirin train --phase long_horizon

Two CPU cores, about two minutes. What is good for 50 steps is too bold for 250; this phase corrects it, with a
lower outer rate because a long unroll's meta-loss is noisier.
"""

from __future__ import annotations

from curriculum.phases.short_horizon import SHORT_HORIZON
from lopt.config import derive
from runtime_model.rejection import ProblemSizeThresholds

LONG_HORIZON = derive(
    SHORT_HORIZON,
    name="long_horizon",
    summary="Larger tasks, 80–250 inner steps: learns to finish.",
    problem_size=ProblemSizeThresholds(seconds=(1.5e-4, 3e-4), probabilities=(0.5, 0.5)),
    max_num_params=10_000,
    num_static_configs=4,
    estimator=derive(SHORT_HORIZON.estimator, min_horizon=80, max_horizon=250),
    theta_optimizer=derive(SHORT_HORIZON.theta_optimizer, learning_rate=2e-3),
    outer_steps=30,
    validate_every=6,
    checkpoint_every=6,
    start_from="short_horizon",
)
