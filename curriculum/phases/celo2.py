"""Celo2's recipe: persistent ES in windows of 50, on four networks of 32 hidden units, in hours on one GPU.

    keirin train --curriculum celo2_laptop --architecture celo2

Windows of 50 steps in horizons log-uniform from 100 to 2 000, eight tasks of random parameter scale per
static configuration, AdamW at 3e-4. 100 000 outer steps and no weight decay are what the configuration
published with the weights says; it also says a rate of 5e-5, where the text has 3e-4.

Not in what is published, and therefore ours: σ (0.01) and one pair per task, a constant rate, a clip that is
never reached. Deviation: the four static configurations are drawn from the four, so that one may come twice.

[1] Celo2, arXiv:2602.19142 (2026).  [2] The configuration beside its published weights (MIT): facts only.
"""

from __future__ import annotations

from curriculum.phase import Phase
from curriculum.phases.laptop import on_a_laptop
from curriculum.theta_optimizer import ThetaOptimizerConfig
from curriculum.update_rules import AdamWConfig
from lopt.estimators.persistent_es import PersistentEsConfig
from runtime_model.rejection import ProblemSizeThresholds

CELO2_FOUR_TASKS = Phase(
    name="celo2_four_tasks",
    summary="Four networks of 32 hidden units, rescaled at random.",
    distribution="celo2",
    problem_size=ProblemSizeThresholds(seconds=(1e-2,), probabilities=(1.0,)),
    num_workers=1,
    num_static_configs=4,
    estimator=PersistentEsConfig(
        sigma=0.01,
        min_horizon=100,
        max_horizon=2_000,
        unroll_length=50,
        num_tasks=8,
        num_pairs=1,
        aggregate="mean",
        meta_loss_scale="linear",
    ),
    theta_optimizer=ThetaOptimizerConfig(
        learning_rate=3e-4,
        schedule="constant",
        warm_up=0,
        update_rule=AdamWConfig(weight_decay=0.0),
        gradient_clip=1e6,
        averaging=0.0,
    ),
    outer_steps=100_000,
    validate_every=1_000,
    checkpoint_every=500,
)

CELO2 = (CELO2_FOUR_TASKS,)
CELO2_LAPTOP = (
    on_a_laptop(
        CELO2_FOUR_TASKS,
        summary="Windows of 20 steps on networks of 32 hidden units, rescaled at random.",
        distribution="celo2_embedded",
        seconds=(1e-3,),
        outer_steps=100,
        learning_rate=2e-3,
        estimator={"min_horizon": 40, "max_horizon": 200, "unroll_length": 20},
        num_static_configs=2,
    ),
)
