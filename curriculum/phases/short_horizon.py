"""The demo's first phase: many short unrolls of small tasks.

    keirin train --phase short_horizon

Two CPU cores, about a minute. A short unroll says little about the end of training but costs little, so the
optimizer learns quickly to be fast; the next phase teaches it to finish.
"""

from __future__ import annotations

from curriculum.phase import Phase
from curriculum.theta_optimizer import ThetaOptimizerConfig
from lopt.estimators.full_es import FullEsConfig
from runtime_model.rejection import ProblemSizeThresholds

SHORT_HORIZON = Phase(
    name="short_horizon",
    summary="Small tasks, 20–80 inner steps: learns to be fast.",
    distribution="demo",
    problem_size=ProblemSizeThresholds(seconds=(6e-5, 1.5e-4), probabilities=(0.5, 0.5)),
    min_num_params=200,
    max_num_params=4_000,
    num_static_configs=6,
    estimator=FullEsConfig(
        sigma=0.03,
        min_horizon=20,
        max_horizon=80,
        num_tasks=4,
        num_pairs=2,
        difference_clip=1.0,
    ),
    theta_optimizer=ThetaOptimizerConfig(learning_rate=4e-3, gradient_clip=10.0),
    outer_steps=60,
    validate_every=10,
    checkpoint_every=10,
)
